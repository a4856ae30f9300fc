// SPDX-License-Identifier: GPL-2.0
/*
 * E10: libFuzzer plays the guest's driver, its CPUs that write to memory meanwhile, the device's pace, and now and
 * then the operator who moves the VM. Whatever the guest does, the device is given no address of the host's, its
 * rings are not written to, no memory is lost, and the model comes to an end.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <fuzzer/FuzzedDataProvider.h>

#include "nvme_world.h"

using namespace redoubt::dma::nvme;

namespace {

[[noreturn]] void fail(const char *what)
{
	std::fprintf(stderr, "fuzz_nvme: %s\n", what);
	std::abort();
}

constexpr u64 lists = 128 << 10; /* where SGLs' segments are, if they are anywhere */

struct Machine {
	FuzzedDataProvider in;
	GuestMemory memory{std::vector<u8>(256 << 10), {}};
	NvmeDisk disk{64 << 10};
	NvmeWorld a{memory, disk}, b{memory, disk};
	NvmeGuest g{memory, a};
	bool private_too = false; /* data may be in private memory: armed once, or by SGLs */

	Machine(const uint8_t *data, std::size_t size) : in(data, size)
	{
		disk.meta = in.ConsumeBool() ? 8 : 0;
		a.direct = b.direct = in.ConsumeBool();
		g.shadow = in.ConsumeBool();
		if (in.ConsumeBool()) {
			a.sgls = in.ConsumeIntegralInRange<u32>(0, 3) | in.ConsumeIntegralInRange<u32>(0, 7) << 16;
			b.sgls = in.ConsumeBool() ? a.sgls : sgls_bytes | 7 << 16;
			private_too = true;
		}
		a.shows = b.shows = in.ConsumeBool();
		if (!a.create() || !b.create())
			fail("no model");
		if (in.ConsumeBool() && g.enable() && g.make_queues(2, 16))
			g.io[0].size = 16;
	}

	u64 address()
	{
		switch (in.ConsumeIntegralInRange<int>(0, 7)) {
		case 0:
			return NvmeWorld::window + in.ConsumeIntegralInRange<u64>(0, 1 << 20);
		case 1:
			return NvmeWorld::window - in.ConsumeIntegralInRange<u64>(0, 1 << 20);
		case 2:
			return in.ConsumeIntegral<u64>();
		case 3:
			return ~0ull - in.ConsumeIntegralInRange<u64>(0, 8192);
		case 4:
			return in.ConsumeIntegralInRange<u64>(0, (256 << 10) + 8192);
		default:
			return in.ConsumeIntegralInRange<u64>(0, 63) * 4096;
		}
	}
	u8 opcode(bool admin)
	{
		constexpr u8 some[2][11] = {
			{nvm_flush, nvm_write, nvm_read, nvm_write_uncorrectable, nvm_compare, nvm_write_zeroes, nvm_dsm,
			 nvm_verify, nvm_copy, 0x0d, 0x80},
			{adm_delete_sq, adm_create_sq, adm_get_log, adm_delete_cq, adm_create_cq, adm_identify, adm_abort,
			 adm_set_features, adm_get_features, adm_async_event, 0x7c}};

		return in.ConsumeIntegralInRange<int>(0, 15) == 0 ? in.ConsumeIntegral<u8>()
								   : some[admin][in.ConsumeIntegralInRange<int>(0, 10)];
	}
	/* Descriptors of which many are good, one by one, and some of them together. */
	Sgl descriptor()
	{
		constexpr u8 ids[] = {sgl_data, sgl_data, sgl_data, sgl_bit_bucket, sgl_segment, sgl_last_segment};
		constexpr u32 lens[] = {0, 1, 16, 32, 256, 512, 4096, 65536, ~0u};
		Sgl d = {};

		d.id = in.ConsumeIntegralInRange<int>(0, 15) == 0 ? in.ConsumeIntegral<u8>() : ids[in.ConsumeIntegralInRange<int>(0, 5)];
		d.addr = address();
		if (d.id >= sgl_segment && in.ConsumeBool())
			d.addr = lists + in.ConsumeIntegralInRange<u64>(0, 255) * 16;
		d.len = in.ConsumeBool() ? lens[in.ConsumeIntegralInRange<int>(0, 8)]
					 : in.ConsumeIntegralInRange<u32>(0, 64) * (d.id >= sgl_segment ? 16 : 64);
		return d;
	}
	void put(u32 at, const Sgl &d)
	{
		std::memcpy(&memory.bytes[lists + at % 256 * 16], &d, sizeof(d));
	}
	/* A transfer that can be, in a list that is as long; unless something is put over it. */
	Sgl good_list(Sqe &e)
	{
		const u32 blocks = in.ConsumeIntegralInRange<u32>(1, 16), first = in.ConsumeIntegralInRange<u32>(0, 200);
		u32 rest = blocks * 512, n = 0;
		Sgl d = {};

		e.opcode = in.ConsumeBool() ? nvm_read : nvm_write;
		e.nsid = 1;
		e.cdw10 = in.ConsumeIntegralInRange<u32>(0, 100);
		e.cdw12 = blocks - 1;
		e.mptr = 4096;
		for (u32 most = in.ConsumeIntegralInRange<u32>(1, 20); n < most; n++) {
			d.id = e.opcode == nvm_read && in.ConsumeIntegralInRange<int>(0, 3) == 0 ? sgl_bit_bucket : sgl_data;
			d.addr = in.ConsumeIntegralInRange<u64>(0, 100 << 10);
			d.len = n + 1 == most ? rest : in.ConsumeIntegralInRange<u32>(0, rest);
			rest -= d.len;
			put(first + n, d);
		}
		d = {};
		d.addr = lists + first * 16;
		d.len = n * 16;
		d.id = sgl_last_segment;
		if (in.ConsumeBool()) { /* half of it by way of another segment, which ends in the middle of this */
			const u32 half = n / 2;
			Sgl on = d;

			on.addr += (half + 1) * 16;
			on.len = (n - half) * 16;
			for (u32 i = n; i > half; i--)
				std::memcpy(&memory.bytes[lists + (first + i) * 16], &memory.bytes[lists + (first + i - 1) * 16], 16);
			put(first + half, on);
			d.id = sgl_segment;
			d.len = (half + 1) * 16;
		}
		return d;
	}
	void list(Sqe &e)
	{
		const Sgl first = in.ConsumeBool() ? good_list(e) : descriptor();
		u64 dptr[2];

		std::memcpy(dptr, &first, sizeof(first));
		e.flags = sqe_sgl;
		e.prp1 = dptr[0];
		e.prp2 = dptr[1];
		for (unsigned n = in.ConsumeIntegralInRange<unsigned>(0, 8) / 2; n != 0; n--)
			put(in.ConsumeIntegralInRange<u32>(0, 255), descriptor());
	}
	void command(NvmeGuest::Queue &q)
	{
		Sqe e = {};

		if (q.size == 0)
			return;
		e.opcode = opcode(q.id == 0);
		e.flags = in.ConsumeIntegralInRange<int>(0, 15) == 0 ? in.ConsumeIntegral<u8>() : u8{0};
		e.cid = in.ConsumeIntegral<u16>();
		e.nsid = in.ConsumeIntegralInRange<u32>(0, 3);
		e.prp1 = address();
		e.prp2 = address();
		e.mptr = address();
		e.cdw10 = q.id == 0 ? in.ConsumeIntegralInRange<u32>(0, 12) | in.ConsumeIntegralInRange<u32>(0, 20) << 16
				    : in.ConsumeIntegralInRange<u32>(0, 200);
		e.cdw11 = q.id == 0 ? in.ConsumeIntegral<u32>() : 0;
		e.cdw12 = in.ConsumeIntegralInRange<u32>(0, 300);
		if (a.sgls != 0 && in.ConsumeBool())
			list(e);
		g.put(q, e);
		if (in.ConsumeBool())
			g.ring(q);
	}
	void move()
	{
		NvmeWorld &from = *g.w, &to = g.w == &a ? b : a;
		std::vector<u8> state(rdt_model_state_max(from.model));

		if (rdt_model_stop(from.model) != 0)
			return;
		const long n = rdt_model_save(from.model, state.data(), state.size());

		if (n > 0) {
			state.resize(static_cast<std::size_t>(n));
			if (in.ConsumeBool())
				state[in.ConsumeIntegralInRange<std::size_t>(0, state.size() - 1)] = in.ConsumeIntegral<u8>();
			if (rdt_model_load(to.model, state.data(), state.size()) == 0) {
				g.w = &to;
				rdt_model_run(to.model, in.ConsumeBool());
				from.function_reset();
				return;
			}
		}
		rdt_model_run(from.model, in.ConsumeBool());
	}
	void turn()
	{
		auto &q = g.io.empty() || in.ConsumeBool() ? g.admin : g.io[in.ConsumeIntegralInRange<std::size_t>(0, g.io.size() - 1)];
		NvmeGuest::Cqe c;

		switch (in.ConsumeIntegralInRange<int>(0, 13)) {
		case 0: {
			const u32 lens[] = {1, 2, 4, 8};

			g.write(in.ConsumeIntegralInRange<u32>(0, 0x1fff), in.ConsumeIntegral<u64>(),
				lens[in.ConsumeIntegralInRange<int>(0, 3)]);
			break;
		}
		case 1:
			g.write(reg_doorbells + 4 * in.ConsumeIntegralInRange<u32>(0, 8), in.ConsumeIntegralInRange<u32>(0, 20));
			break;
		case 2:
			memory.bytes[in.ConsumeIntegralInRange<u64>(0, memory.bytes.size() - 1)] = in.ConsumeIntegral<u8>();
			break;
		case 3:
			g.w->work(in.ConsumeIntegralInRange<unsigned>(0, 8));
			break;
		case 4:
			g.w->interrupts();
			break;
		case 5:
			while (q.size != 0 && g.next(q, c))
				;
			g.ack(q);
			break;
		case 6:
			private_too = true;
			rdt_model_arm(g.w->model, in.ConsumeBool());
			break;
		case 7:
			move();
			break;
		case 8:
			g.w->notice(in.ConsumeIntegral<u32>());
			break;
		case 9:
			if (in.ConsumeIntegralInRange<int>(0, 7) == 0)
				g.w->function_reset();
			else if (in.ConsumeBool())
				g.disable();
			else
				g.write(reg_cc, in.ConsumeIntegral<u32>());
			break;
		case 10:
			if (in.ConsumeIntegralInRange<int>(0, 7) == 0)
				rdt_model_unshow(g.w->model);
			break;
		default:
			command(q);
		}
		if (a.hidden_twice + b.hidden_twice != 0)
			fail("a page was hidden that was not shown");
		if (a.trespass + b.trespass != 0)
			fail("data into the device's rings");
		if (a.window_asks + b.window_asks != 0)
			fail("an address of the host's was taken for the guest's");
		if (!private_too && a.private_data + b.private_data != 0)
			fail("an address of the host's got through");
	}
	~Machine()
	{
		a.destroy();
		b.destroy();
		if (a.private_bytes() + b.private_bytes() != 0)
			fail("memory is lost");
		if (!a.seen.empty() || !b.seen.empty() || a.hidden_twice + b.hidden_twice != 0)
			fail("the guest's CPUs still see a copy");
	}
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, std::size_t size)
{
	Machine m(data, size);

	for (unsigned n = 0; m.in.remaining_bytes() != 0 && n < 2000; n++)
		m.turn();
	return 0;
}
