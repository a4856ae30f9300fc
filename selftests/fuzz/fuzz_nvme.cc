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

struct Machine {
	FuzzedDataProvider in;
	GuestMemory memory{std::vector<u8>(256 << 10), {}};
	NvmeDisk disk{64 << 10};
	NvmeWorld a{memory, disk}, b{memory, disk};
	NvmeGuest g{memory, a};
	bool armed = false;

	Machine(const uint8_t *data, std::size_t size) : in(data, size)
	{
		disk.meta = in.ConsumeBool() ? 8 : 0;
		a.direct = b.direct = in.ConsumeBool();
		g.shadow = in.ConsumeBool();
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

		switch (in.ConsumeIntegralInRange<int>(0, 12)) {
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
			armed = true;
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
		default:
			command(q);
		}
		if (a.trespass + b.trespass != 0)
			fail("data into the device's rings");
		if (!armed && a.private_data + b.private_data != 0)
			fail("an address of the host's got through");
	}
	~Machine()
	{
		a.destroy();
		b.destroy();
		if (a.private_bytes() + b.private_bytes() != 0)
			fail("memory is lost");
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
