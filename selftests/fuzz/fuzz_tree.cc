// SPDX-License-Identifier: GPL-2.0
/*
 * libFuzzer plays the guest, the operator and the attacker: each input is a program
 * of operations on a tree and of writes into its node pages. While no tag was
 * guessed, every answer must be the model's or Corrupt.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <fuzzer/FuzzedDataProvider.h>

#include "tree_world.h"

using namespace redoubt;

namespace {

[[noreturn]] void fail(const char *what)
{
	std::fprintf(stderr, "fuzz_tree: %s\n", what);
	std::abort();
}

struct Machine {
	FuzzedDataProvider in;
	TreeWorld w{1};
	bool sealed = true;
	bool dead = false;
	/* a write that happens at the n-th load from now on */
	unsigned fuse = 0;
	u64 loads = 0;

	Machine(const uint8_t *data, std::size_t size) : in(data, size)
	{
		test_on_node_load(
			[](void *ctx) {
				Machine *m = static_cast<Machine *>(ctx);

				m->loads++;
				if (m->fuse != 0 && --m->fuse == 0)
					m->scribble();
			},
			this);
	}
	~Machine()
	{
		test_on_node_load(nullptr, nullptr);
	}

	void scribble()
	{
		if (w.pages.empty())
			return;
		auto it = std::next(w.pages.begin(),
				    in.ConsumeIntegralInRange<long>(0, static_cast<long>(w.pages.size()) - 1));
		/* the first nodes are the ones in use */
		const unsigned word = in.ConsumeIntegralInRange<unsigned>(0, in.ConsumeBool() ? 40 : 511);

		reinterpret_cast<u64 *>(it->second.get())[word] =
			in.ConsumeBool() ? in.ConsumeIntegral<u64>() : in.ConsumeIntegral<u8>();
	}

	Range range()
	{
		const gfn_t base = in.ConsumeBool() ? 0 : gfn_limit - 256;
		const u64 first = in.ConsumeIntegral<u8>();

		return {base + first, in.ConsumeIntegralInRange<u64>(1, 256 - first),
			in.ConsumeIntegralInRange<u8>(0, 1),
			static_cast<Action>(in.ConsumeIntegralInRange<u8>(1, 3)), 0};
	}

	void check(Status got, Status want)
	{
		if (dead && got != Status::Corrupt)
			fail("poison does not stick");
		if ((got == Status::Corrupt) != w.tree.poisoned())
			fail("Corrupt and poisoned do not agree");
		if (got == Status::Corrupt)
			dead = true;
		else if (sealed && got != want)
			fail("wrong answer");
	}

	void check_found(Status got, const Range &out, const Range *expected)
	{
		check(got, expected ? Status::Ok : Status::None);
		if (sealed && got == Status::Ok && !(out == *expected))
			fail("wrong range");
	}

	void step()
	{
		Range out = {};
		const Range r = range();

		switch (in.ConsumeIntegralInRange<unsigned>(0, 11)) {
		case 0: {
			const Status want = dead ? Status::Ok : w.expect_insert(r);
			check(w.tree.insert(r), want);
			break;
		}
		case 1: {
			const Status want = dead ? Status::Ok : w.expect_protect(r);
			check(w.tree.protect(r), want);
			break;
		}
		case 2: {
			const Status want = dead ? Status::Ok : w.expect_remove(r.first, r.count);
			check(w.tree.remove(r.first, r.count), want);
			break;
		}
		case 3:
		case 4: {
			const Status got = w.tree.find(r.first, &out);
			check_found(got, out, w.model.find(r.first));
			break;
		}
		case 5: {
			const Status got = w.tree.next(r.first, &out);
			check_found(got, out, w.model.next(r.first));
			break;
		}
		case 6:
			check(w.tree.verify(), Status::Ok);
			break;
		case 7:
			if (w.pages.size() < 3)
				check(w.add_page(), Status::Ok);
			break;
		case 8:
			if (!w.pages.empty()) {
				const Status want = w.model.map.size() > w.capacity() - MonitorTree::nodes_per_page ?
							    Status::NoNodes :
							    Status::Ok;
				check(w.remove_page(w.pages.begin()->first), want);
			}
			break;
		case 9:
			scribble();
			break;
		case 10:
			fuse = in.ConsumeIntegral<u8>();
			break;
		case 11:
			if (in.ConsumeBool()) {
				TreeTester::reseal(w.tree);
				sealed = false;
			}
			break;
		}
	}

	void run()
	{
		(void)w.add_page();
		while (in.remaining_bytes() != 0) {
			const u64 before = loads;

			step();
			if (loads - before > 100000)
				fail("does not end");
		}
	}
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, std::size_t size)
{
	Machine(data, size).run();
	return 0;
}
