// SPDX-License-Identifier: GPL-2.0
/* A11: what an event says: who, where, what, when it is known, and which range. */
#include "vm_world.h"

using namespace redoubt;

namespace {

void monitored(World &w)
{
	w.start();
	ASSERT_EQ(w.protect(100, 4, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(110, 4, RDT_ACT_DENY, RDT_CLS_RODATA), 0);
	for (gfn_t g = 100; g < 114; g++)
		for (unsigned i = 0; i < page_size / 8; i++)
			w.host.at<u64>(gpa_of(g) + i * 8) = 0x0102030405060708ul * (g - 99) + i;
	w.quiet();
}

u64 bytes(World &w, gpa_t gpa, unsigned n)
{
	u64 v = 0;

	std::memcpy(&v, w.host.page(0) + gpa, n);
	return v;
}

} // namespace

TEST(A11, EveryFieldOfARefusedWrite)
{
	World w;

	monitored(w);
	FaultOpts o;

	o.gva_valid = true;
	o.gva = 0xffff888000abc123;
	w[1].cpl = 3;
	EXPECT_EQ(w[1].fault(gpa_of(112) + 0x123, RDT_ACC_W, o), RDT_V_GP);
	const rdt_event ev = w.one_event();

	EXPECT_EQ(ev.type, RDT_EV_WRITE);
	EXPECT_EQ(ev.action, RDT_ACT_DENY);
	EXPECT_EQ(ev.cls, RDT_CLS_RODATA);
	EXPECT_EQ(ev.vcpu, 1u);
	EXPECT_EQ(ev.cpl, 3);
	EXPECT_EQ(ev.view, RDT_VIEW_ROOT);
	EXPECT_EQ(ev.code, 0);
	EXPECT_EQ(ev.rip, w[1].regs.rip);
	EXPECT_EQ(ev.cr3, w[1].regs.cr3);
	EXPECT_EQ(ev.gpa, gpa_of(112) + 0x123);
	EXPECT_EQ(ev.gva, 0xffff888000abc123);
	EXPECT_EQ(ev.range_gpa, gpa_of(110));
	EXPECT_EQ(ev.range_pages, 4u);
	EXPECT_EQ(ev.old_val, bytes(w, gpa_of(112) + 0x123, 8));
	EXPECT_EQ(ev.new_val, 0u);
	EXPECT_EQ(ev.size, 0);
	EXPECT_EQ(ev.flags, RDT_EVF_GVA | RDT_EVF_OLD);
}

/* Sizes and places: never a byte beyond the page, never one beyond the size. */
TEST(A11, ValuesUpToEightBytesAndNotBeyondThePage)
{
	World w;

	monitored(w);
	for (unsigned size : {0u, 1u, 2u, 3u, 4u, 7u, 8u, 9u, 16u, 64u, 255u})
		for (unsigned offset : {0u, 1u, 8u, 4087u, 4088u, 4089u, 4092u, 4095u}) {
			SCOPED_TRACE(std::to_string(size) + " bytes at " + std::to_string(offset));
			const gpa_t gpa = gpa_of(103) + offset; /* the last of its range */
			const unsigned n = min_of(min_of(size ? size : 8u, 8u), 4096 - offset);
			/* Exactly as long as it says: a byte more is an overrun for ASan. */
			std::vector<u8> val(size ? min_of(size, 8u) : 1);
			FaultOpts o;

			for (usize i = 0; i < val.size(); i++)
				val[i] = static_cast<u8>(0xa0 + i);
			o.size = static_cast<u8>(size);
			o.new_val = val.data();
			o.emulated = true;
			EXPECT_EQ(w[0].kvm_write(gpa, o), RDT_V_PASS);
			const rdt_event ev = w.one_event();
			u64 want = 0;

			EXPECT_EQ(ev.old_val, bytes(w, gpa, n));
			EXPECT_EQ(ev.size, size);
			EXPECT_TRUE(ev.flags & RDT_EVF_OLD);
			EXPECT_EQ(ev.flags & RDT_EVF_SIZE, size ? RDT_EVF_SIZE : 0u);
			EXPECT_EQ(ev.flags & RDT_EVF_NEW, size ? RDT_EVF_NEW : 0u);
			if (size)
				std::memcpy(&want, val.data(), n);
			EXPECT_EQ(ev.new_val, want);
			EXPECT_TRUE(ev.flags & RDT_EVF_EMULATED);
		}
}

TEST(A11, WhatIsNotKnownIsNotSaid)
{
	World w;

	monitored(w);
	w.host.fail_read = true;
	EXPECT_EQ(w[0].fault(gpa_of(110), RDT_ACC_W), RDT_V_GP);
	rdt_event ev = w.one_event();

	EXPECT_EQ(ev.flags, 0u);
	EXPECT_EQ(ev.old_val, 0u);
	EXPECT_EQ(ev.gva, 0u);
	w.host.fail_read = false;

	FaultOpts o;

	o.gva = 0x1234; /* not valid */
	o.vectoring = true;
	EXPECT_EQ(w[0].fault(gpa_of(110), RDT_ACC_W, o), RDT_V_GP);
	ev = w.one_event();
	EXPECT_EQ(ev.flags, RDT_EVF_OLD | RDT_EVF_EVENT);
	EXPECT_EQ(ev.gva, 0u);
}

/* The writer's mode and its registers are those at the write, not those after it. */
TEST(A11, TheWriterIsReportedAsItWas)
{
	World w;

	monitored(w);
	ASSERT_TRUE(w[0].enter_call());
	w[0].regs.rip = lay::inside + 0x777;
	const u64 cr3 = w[0].regs.cr3;

	EXPECT_EQ(w[0].fault(gpa_of(110), RDT_ACC_W), RDT_V_RESUME);
	const rdt_event ev = w.one_event();

	EXPECT_EQ(ev.rip, lay::inside + 0x777);
	EXPECT_EQ(ev.cr3, cr3);
	EXPECT_EQ(ev.view, RDT_VIEW_INTEGRITY);
	EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
}

/* A11: nothing is merged or dropped: n refused writes are n events. */
TEST(A11, AnEventForEachWrite)
{
	World w;

	monitored(w);
	for (unsigned i = 0; i < 1000; i++)
		(void)w[i % 2].fault(gpa_of(110 + i % 4) + i, RDT_ACC_W);
	const auto ev = w.host.take_events();

	ASSERT_EQ(ev.size(), 1000u);
	for (unsigned i = 0; i < 1000; i++) {
		EXPECT_EQ(ev[i].gpa, gpa_of(110 + i % 4) + i);
		EXPECT_EQ(ev[i].vcpu, i % 2);
	}
}

/* Requests to weaken protection: who asked for what. */
TEST(A5, RefusedRequestsAreAlerts)
{
	World w;

	monitored(w);
	w[1].cpl = 0;
	EXPECT_EQ(w[1].hc(RDT_HC_UNPROTECT, gpa_of(110), 3), -1);
	rdt_event ev = w.one_event();

	EXPECT_EQ(ev.type, RDT_EV_UNPROTECT);
	EXPECT_EQ(ev.vcpu, 1u);
	EXPECT_EQ(ev.rip, w[1].regs.rip);
	EXPECT_EQ(ev.gpa, gpa_of(110));
	EXPECT_EQ(ev.range_gpa, gpa_of(110));
	EXPECT_EQ(ev.range_pages, 3u);
	EXPECT_EQ(ev.action, RDT_ACT_DENY);

	EXPECT_EQ(w[0].hc(RDT_HC_PROTECT, gpa_of(111), 1, RDT_ATTR(RDT_ACT_LOG, 2)), -1);
	ev = w.one_event();
	EXPECT_EQ(ev.type, RDT_EV_PROTECT_REFUSED);
	EXPECT_EQ(ev.vcpu, 0u);
	EXPECT_EQ(ev.gpa, gpa_of(111));
}
