// SPDX-License-Identifier: GPL-2.0
/* C11: what the kit links, run in this process: the way in and out, and the runtime. */
#include <errno.h>
#include <string.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "outside.h"

namespace {

class Domain {
public:
	explicit Domain(const char *path)
	{
		if (rdt_image_load(path, &im_) || outside_map(im_, -1))
			throw std::runtime_error(rdt_error());
	}
	~Domain()
	{
		outside_unmap(im_);
		rdt_image_free(im_);
	}
	long call(uint64_t op, const std::string &in = "", size_t room = 0, unsigned slot = 0)
	{
		out.assign(room, '?');
		return outside_call(im_, slot, op, in.data(), in.size(), out.data(), room);
	}
	uint64_t word(unsigned nr) const
	{
		uint64_t w;
		memcpy(&w, out.data() + 8 * nr, 8);
		return w;
	}
	const rdt_image *operator->() const { return im_; }
	std::string out;

private:
	rdt_image *im_ = nullptr;
};

struct Placeholder {
	std::string name;
	uint64_t gva, bytes;
};

int note(void *found, const char *name, uint64_t gva, uint64_t bytes)
{
	static_cast<std::vector<Placeholder> *>(found)->push_back({name, gva, bytes});
	return 0;
}

} // namespace

TEST(C11, InAndOut)
{
	Domain d("test.dom");

	EXPECT_EQ(d.call(0, "stressed", 100), 17);
	EXPECT_EQ(d.out.substr(0, 17), "dessertshellodata");
	EXPECT_EQ(d.out[17], '?') << "only the answer is copied";
	EXPECT_EQ(d.call(0, "", 100), 9);
	EXPECT_EQ(d.call(0, "x", 9), -EMSGSIZE);
	EXPECT_EQ(d.call(99), -ENOSYS);
	EXPECT_EQ(d.call(5), -EEXIST) << "rdt_leave()";
	EXPECT_EQ(d.call(10), 0) << "memcpy and the like";
}

TEST(C11, TheInputIsAPrivateCopy)
{
	Domain d("test.dom");

	for (unsigned slot = 0; slot < 4; slot++) {
		ASSERT_EQ(d.call(1, std::string(5000, 'i'), 40, slot), 40);
		EXPECT_EQ(d.word(0), d->stack_top[slot]) << "right above the slot's own stack";
		EXPECT_EQ(d.word(1), d->stack_top[slot] + 8192);
		EXPECT_EQ(d.word(2), 5000u);
		EXPECT_LT(d.word(3), d->stack_top[slot]);
		EXPECT_GT(d.word(3), d->stack_top[slot] - 512);
		EXPECT_EQ(d.word(4), slot);
		/* overwritten when the call is over */
		for (unsigned i = 0; i < 5000; i++)
			ASSERT_EQ(reinterpret_cast<char *>(d->stack_top[slot])[i], 0);
	}
	EXPECT_EQ(d.call(1, std::string(5001, 'i'), 40), -EMSGSIZE);
}

/* Not even what an earlier call has left there. */
TEST(C11, TheOutputStartsAsZeros)
{
	Domain d("test.dom");

	for (int i = 0; i < 2; i++)
		EXPECT_EQ(d.call(2, "", 4096), 0);
	EXPECT_EQ(d.call(3, "", 100), -EIO) << "an answer that is longer than its room";
}

/* The numbers in registers are whatever the guest's kernel likes. */
TEST(C11, AddressesThatAreNotOfTheWindow)
{
	Domain d("test.dom");
	const uint64_t w = d->window[0].gva, end = w + d->window[0].pages * 4096, top = d->stack_top[0];
	auto enter = [&](uint64_t part, uint64_t len, uint64_t room) {
		return outside_enter(room, len, part, 0, d->gate_gva, top);
	};

	EXPECT_EQ(enter(w, 10, 100), 19);
	EXPECT_EQ(enter(end - 100, 10, 100), 19);
	for (uint64_t bad : {w - 1, end - 99, end, end + 1, uint64_t{0}, ~uint64_t{0}, ~uint64_t{0} - 50, top, top - 4096,
			     uint64_t{d->gate_gva}, uint64_t{0xffff888000000000}})
		EXPECT_EQ(enter(bad, 10, 100), -EFAULT) << std::hex << bad;
	EXPECT_EQ(enter(end - 5000, 5000, 0), -EMSGSIZE) << "no room for the answer, but the input is in there";
	EXPECT_EQ(enter(end - 4999, 5000, 0), -EFAULT);
	EXPECT_EQ(enter(w, ~uint64_t{0}, 100), -EMSGSIZE);
	EXPECT_EQ(enter(w, 5001, 100), -EMSGSIZE);
	EXPECT_EQ(enter(w, 10, ~uint64_t{0}), 19) << "more room than a message is as much as one";
	EXPECT_EQ(enter(end - 4999, 10, ~uint64_t{0}), -EFAULT);
}

TEST(C11, RandomBytesDiffer)
{
	Domain d("test.dom");
	std::set<std::string> seen;

	for (int i = 0; i < 50; i++) {
		ASSERT_EQ(d.call(4, "", 16), 16);
		seen.insert(d.out);
	}
	EXPECT_EQ(seen.size(), 50u);
	EXPECT_EQ(d.call(4, "", 13), 13);
}

TEST(C11, TheHeapEnds)
{
	EXPECT_EQ(Domain("test.dom").call(7), 0);
}

TEST(C11, FourThreadsAtOnce)
{
	Domain d("test.dom");
	std::vector<std::thread> threads;
	std::atomic<int> wrong = 0;

	for (unsigned slot = 0; slot < 4; slot++)
		threads.emplace_back([&, slot] {
			for (int i = 0; i < 20000; i++) {
				long ret;

				do	/* whoever has it may not be running */
					ret = outside_call(d.operator->(), slot, 6, nullptr, 0, nullptr, 0);
				while (ret == -EAGAIN);
				wrong += ret != 0;
			}
		});
	for (auto &t : threads)
		t.join();
	EXPECT_EQ(wrong, 0);
	EXPECT_EQ(d.call(6), 0) << "and both words are still the same";
}

/* Who is killed inside is not heard of again: his slot is. */
TEST(C11, AHolderThatWasKilled)
{
	Domain d("test.dom");

	EXPECT_EQ(d.call(6, "", 0, 1), 0);
	EXPECT_EQ(d.call(8, "", 0, 2), -EFAULT);
	EXPECT_EQ(d.call(6, "", 0, 1), -EAGAIN) << "it may still come back";
	EXPECT_EQ(d.call(99, "", 0, 2), -ENOSYS);
	EXPECT_EQ(d.call(6, "", 8, 1), 1) << "it cannot any more: repaired";
	EXPECT_EQ(d.call(6, "", 0, 1), 0);
}

TEST(C11, APlaceholderIsWhereItSays)
{
	Domain d("test.dom");
	std::vector<Placeholder> found;

	ASSERT_EQ(rdt_image_placeholders("test.dom", note, &found), 0) << rdt_error();
	ASSERT_EQ(found.size(), 1u);
	EXPECT_EQ(found[0].name, "word");
	EXPECT_EQ(found[0].bytes, 8u);
	EXPECT_EQ(d.call(9, "", 8), 8);
	EXPECT_EQ(d.word(0), 0u);
	memcpy(reinterpret_cast<void *>(found[0].gva), "operator", 8);
	EXPECT_EQ(d.call(9, "", 8), 8);
	EXPECT_EQ(d.out, "operator");
	EXPECT_EQ(rdt_image_placeholders("test.dom", [](void *, auto...) { return 7; }, nullptr), 7);
	EXPECT_EQ(rdt_image_placeholders("/dev/null", note, &found), -ENOEXEC);
	EXPECT_EQ(rdt_image_placeholders("/bin/sh", note, &found), 0);
	EXPECT_EQ(rdt_image_placeholders("vector.dom", note, &found), 0);
	EXPECT_EQ(found.size(), 1u);
}

TEST(C11, CxxAndVectorRegisters)
{
	Domain d("vector.dom");
	const double values[] = {1.5, 2.25, 4};
	double sum;

	EXPECT_EQ(d->flags, unsigned{RDT_DOM_VECTOR});
	EXPECT_EQ(d->gate_gva >> 16, 0x3000u) << "DOMAIN_BASE";
	ASSERT_EQ(d.call(0, std::string(reinterpret_cast<const char *>(values), sizeof(values)), 8), 8);
	memcpy(&sum, d.out.data(), 8);
	EXPECT_EQ(sum, 7.75);
}
