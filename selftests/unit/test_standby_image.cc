// SPDX-License-Identifier: GPL-2.0
/* F3: an image is whole when every frame and all of the device state are there, and are what was sent. */
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "standby/image.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

using Hash = std::array<u8, digest_bytes>;

bool sha_fails = false;

bool sha256(void *, const Piece *pieces, unsigned n, u8 out[digest_bytes])
{
	std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX *)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
	bool good = !sha_fails && EVP_DigestInit_ex(ctx.get(), EVP_sha256(), nullptr) == 1;

	EXPECT_LE(n, 4u);
	for (unsigned i = 0; i < n; i++)
		good = good && EVP_DigestUpdate(ctx.get(), pieces[i].p, pieces[i].n) == 1;
	return good && EVP_DigestFinal_ex(ctx.get(), out, nullptr) == 1;
}

constexpr Sha256 sha = {sha256, nullptr};

/* The definition in image.h once more, the slow way. */
struct Model {
	std::vector<standby::Run> slots;
	std::map<gfn_t, Hash> leaf;
	std::string state;

	static Hash h(std::initializer_list<std::string> parts)
	{
		std::string all;
		Hash out;
		for (const std::string &p : parts)
			all += p;
		const Piece piece = {all.data(), all.size()};
		EXPECT_TRUE(sha256(nullptr, &piece, 1, out.data()));
		return out;
	}
	static std::string s(const Hash &x)
	{
		return std::string(x.begin(), x.end());
	}
	static std::string n(u64 x)
	{
		std::string out;
		for (unsigned i = 0; i < 8; i++)
			out += char(x >> 8 * i);
		return out;
	}
	static Hash page(const std::string &bytes)
	{
		return h({std::string(1, 0), bytes});
	}
	Digest digest() const
	{
		std::vector<Hash> level;
		for (const auto &[gfn, l] : leaf)
			level.push_back(l);
		while (level.size() > 1) {
			std::vector<Hash> up;
			for (std::size_t i = 0; i + 1 < level.size(); i += 2)
				up.push_back(h({std::string(1, 1), s(level[i]), s(level[i + 1])}));
			if (level.size() % 2)
				up.push_back(level.back());
			level = up;
		}
		std::string layout;
		for (const standby::Run &r : slots)
			layout += n(r.first) + n(r.count);
		const Hash d = h({std::string(1, 2), n(leaf.size()), n(slots.size()), layout, s(level[0]), n(state.size()),
				  s(h({std::string(1, 3), state}))});
		Digest out;
		std::memcpy(out.byte, d.data(), digest_bytes);
		return out;
	}
};

struct Made {
	std::vector<u64> mem;
	Image image{sha};

	Status begin(const std::vector<standby::Run> &slots, bool keep = false)
	{
		u64 frames = 0;
		for (const standby::Run &r : slots)
			frames += r.count;
		mem.resize(Image::bytes_for(frames) / 8);
		return image.begin(slots.data(), unsigned(slots.size()), mem.data(), mem.size() * 8, keep);
	}
};

Hash hash_of(u64 x)
{
	return Model::page(Model::n(x));
}

TEST(StandbyImage, SlotsAreCheckedAndFramesAreFound)
{
	Made m;
	u64 i;

	EXPECT_EQ(m.begin({}), Status::Inval);
	EXPECT_EQ(m.begin({{0, 0}}), Status::Inval);
	EXPECT_EQ(m.begin({{5, 3}, {7, 2}}), Status::Inval);
	EXPECT_EQ(m.begin({{8, 3}, {2, 2}}), Status::Inval);
	EXPECT_EQ(m.begin({{gfn_limit - 1, 2}}), Status::Inval);
	EXPECT_EQ(m.begin({{0, 160}, {192, 8}, {200, 10}}), Status::Ok);
	EXPECT_EQ(m.image.begin(std::vector<standby::Run>{{0, 160}}.data(), 1, m.mem.data(), Image::bytes_for(160) - 1, false),
		  Status::NoMem);
	EXPECT_EQ(m.begin({{0, 160}, {192, 8}, {200, 10}}), Status::Ok);
	EXPECT_EQ(m.image.frames(), 178u);
	EXPECT_EQ(m.image.index(0, &i), Status::Ok);
	EXPECT_EQ(i, 0u);
	EXPECT_EQ(m.image.index(209, &i), Status::Ok);
	EXPECT_EQ(i, 177u);
	EXPECT_EQ(m.image.index(160, &i), Status::None);
	EXPECT_EQ(m.image.index(191, &i), Status::None);
	EXPECT_EQ(m.image.index(210, &i), Status::None);
	EXPECT_EQ(m.image.index(~0ull, &i), Status::None);
	EXPECT_TRUE(m.image.covers(0, 160));
	EXPECT_FALSE(m.image.covers(0, 161));
	EXPECT_TRUE(m.image.covers(192, 18));
	EXPECT_FALSE(m.image.covers(192, 19));
	EXPECT_FALSE(m.image.covers(159, 34));
	EXPECT_FALSE(m.image.covers(195, 0));
	EXPECT_FALSE(m.image.covers(1, ~0ull));
	EXPECT_EQ(m.image.page(170, hash_of(1).data()), Status::Inval);
}

TEST(StandbyImage, F3_nothing_is_whole_until_all_has_arrived)
{
	const std::vector<standby::Run> slots = {{0, 70}, {100, 131}};
	const std::string state = "what the VMM says of its devices";
	std::mt19937 rnd(2);
	Model model{slots, {}, state};
	std::vector<gfn_t> order;
	Made m;
	Digest d;

	ASSERT_EQ(m.begin(slots), Status::Ok);
	for (const standby::Run &r : slots)
		for (u64 k = 0; k < r.count; k++)
			order.push_back(r.first + k);
	for (gfn_t g : order)
		model.leaf[g] = hash_of(g);
	std::shuffle(order.begin(), order.end(), rnd);
	ASSERT_EQ(m.image.state(state.size(), 0, 10), Status::Ok);
	for (gfn_t g : order) {
		ASSERT_FALSE(m.image.check(order.size(), state.size(), state.data(), &d));
		ASSERT_TRUE(d.none());
		/* What is lacking is what has not come, as runs that do not leave a slot. */
		u64 lacking = 0;
		standby::Run r;
		for (gfn_t at = 0; m.image.lacks(at, &r) == Status::Ok; at = r.first + r.count) {
			ASSERT_GE(r.first, at);
			ASSERT_TRUE(m.image.covers(r.first, r.count));
			lacking += r.count;
			for (u64 k = 0; k < r.count; k++)
				ASSERT_FALSE(m.image.arrived(r.first + k));
		}
		ASSERT_EQ(lacking, order.size() - m.image.have());
		/* Twice is fine; the later one counts. */
		ASSERT_EQ(m.image.page(g, hash_of(~g).data()), Status::Ok);
		ASSERT_EQ(m.image.page(g, hash_of(g).data()), Status::Ok);
		ASSERT_TRUE(m.image.arrived(g));
	}
	standby::Run r;
	EXPECT_EQ(m.image.lacks(0, &r), Status::None);
	EXPECT_FALSE(m.image.check(order.size(), state.size(), state.data(), &d));
	EXPECT_TRUE(d.none());
	ASSERT_EQ(m.image.state(state.size(), 10, state.size() - 10), Status::Ok);
	EXPECT_TRUE(m.image.check(order.size(), state.size(), state.data(), &d));
	EXPECT_EQ(d, model.digest());
	/* The counts of END, too. */
	EXPECT_FALSE(m.image.check(order.size() + 1, state.size(), state.data(), &d));
	EXPECT_FALSE(m.image.check(order.size(), state.size() - 1, state.data(), &d));
	/* One frame less. */
	ASSERT_EQ(m.image.forget(100), Status::Ok);
	EXPECT_FALSE(m.image.check(order.size(), state.size(), state.data(), &d));
	ASSERT_EQ(m.image.page(100, hash_of(100).data()), Status::Ok);
	EXPECT_TRUE(m.image.check(order.size(), state.size(), state.data(), &d));
	sha_fails = true;
	EXPECT_FALSE(m.image.check(order.size(), state.size(), state.data(), &d));
	EXPECT_TRUE(d.none());
	sha_fails = false;
}

TEST(StandbyImage, TheDigestIsTheTreeOfTheDefinitionForEachNumberOfFrames)
{
	for (u64 frames = 1; frames < 140; frames++) {
		Model model{{{3, frames}}, {}, "x"};
		Made m;
		Digest d;

		ASSERT_EQ(m.begin(model.slots), Status::Ok);
		for (u64 k = 0; k < frames; k++) {
			model.leaf[3 + k] = hash_of(k * k);
			ASSERT_EQ(m.image.page(3 + k, hash_of(k * k).data()), Status::Ok);
		}
		ASSERT_EQ(m.image.state(1, 0, 1), Status::Ok);
		ASSERT_EQ(m.image.digest("x", &d), Status::Ok);
		ASSERT_EQ(d, model.digest()) << frames;
	}
}

TEST(StandbyImage, F3_any_difference_is_another_digest)
{
	const auto digest = [](const std::vector<standby::Run> &slots, u64 other, const std::string &state) {
		Made m;
		Digest d;
		u64 k = 0;

		EXPECT_EQ(m.begin(slots), Status::Ok);
		for (const standby::Run &r : slots)
			for (u64 i = 0; i < r.count; i++, k++)
				EXPECT_EQ(m.image.page(r.first + i, hash_of(k == other ? 1000 : k).data()), Status::Ok);
		EXPECT_EQ(m.image.state(state.size(), 0, state.size()), Status::Ok);
		EXPECT_EQ(m.image.digest(state.data(), &d), Status::Ok);
		return d;
	};
	const Digest d = digest({{0, 37}}, 99, "state");

	EXPECT_EQ(d, digest({{0, 37}}, 99, "state"));
	for (u64 k = 0; k < 37; k++)
		EXPECT_FALSE(d == digest({{0, 37}}, k, "state"));
	EXPECT_FALSE(d == digest({{0, 37}}, 99, "State"));
	EXPECT_FALSE(d == digest({{0, 37}}, 99, "stat"));
	EXPECT_FALSE(d == digest({{1, 37}}, 99, "state"));
	EXPECT_FALSE(d == digest({{0, 36}, {36, 1}}, 99, "state"));
	EXPECT_FALSE(d == digest({{0, 36}, {40, 1}}, 99, "state"));
}

TEST(StandbyImage, DeviceStateComesInOrderOrAnew)
{
	Made m;

	ASSERT_EQ(m.begin({{0, 1}}), Status::Ok);
	EXPECT_FALSE(m.image.state_whole());
	EXPECT_EQ(m.image.state(0, 0, 0), Status::Inval);
	EXPECT_EQ(m.image.state(10, 5, 5), Status::Inval);
	EXPECT_EQ(m.image.state(10, 0, 11), Status::Inval);
	EXPECT_EQ(m.image.state(10, 0, 0), Status::Inval);
	EXPECT_EQ(m.image.state(max_state + 1, 0, 1), Status::Inval);
	EXPECT_EQ(m.image.state(10, 0, 6), Status::Ok);
	EXPECT_EQ(m.image.state(10, 5, 5), Status::Inval);
	EXPECT_EQ(m.image.state(11, 6, 5), Status::Inval);
	EXPECT_EQ(m.image.state(10, ~0ull, 5), Status::Inval);
	EXPECT_EQ(m.image.state(20, 0, 4), Status::Ok);
	EXPECT_EQ(m.image.state(20, 4, 16), Status::Ok);
	EXPECT_TRUE(m.image.state_whole());
	EXPECT_EQ(m.image.state(20, 20, 1), Status::Inval);
}

TEST(StandbyImage, SameIsTakenOnlyForWhatWasStored)
{
	Made m;
	const Hash none{};

	ASSERT_EQ(m.begin({{0, 4}}), Status::Ok);
	EXPECT_EQ(m.image.same(0, hash_of(0).data()), Status::None);
	EXPECT_EQ(m.image.same(0, none.data()), Status::None);
	ASSERT_EQ(m.image.page(0, hash_of(0).data()), Status::Ok);
	ASSERT_EQ(m.image.page(1, hash_of(1).data()), Status::Ok);
	/* The next epoch, over the same memory. */
	ASSERT_EQ(m.begin({{0, 4}}, true), Status::Ok);
	EXPECT_EQ(m.image.have(), 0u);
	EXPECT_EQ(m.image.same(0, hash_of(0).data()), Status::Ok);
	EXPECT_TRUE(m.image.arrived(0));
	EXPECT_EQ(m.image.same(1, hash_of(7).data()), Status::None);
	EXPECT_FALSE(m.image.arrived(1));
	/* Never came: neither a hash of it, nor zeroes. */
	EXPECT_EQ(m.image.same(2, none.data()), Status::None);
	EXPECT_EQ(m.image.same(4, hash_of(0).data()), Status::Inval);
	EXPECT_EQ(m.image.have(), 1u);
	/* Not kept: forgotten. */
	ASSERT_EQ(m.begin({{0, 4}}, false), Status::Ok);
	EXPECT_EQ(m.image.same(1, hash_of(1).data()), Status::None);
	EXPECT_EQ(m.image.leaf(1), nullptr);
}

TEST(StandbyImage, LeavesAreOfPages)
{
	Made m;
	std::string page(page_size, 'x');
	Hash leaf;

	ASSERT_TRUE(m.image.page_leaf(page.data(), leaf.data()));
	EXPECT_EQ(leaf, Model::page(page));
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_TRUE(m.image.zero_leaf(leaf.data()));
		EXPECT_EQ(leaf, Model::page(std::string(page_size, 0)));
	}
}

} // namespace
