// SPDX-License-Identifier: GPL-2.0
/* A10: the decoder of plain stores, held against the processor that runs this test. */
#include <cstring>
#include <random>
#include <vector>

#include <asm/prctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "insn.h"

using namespace redoubt;

namespace {

struct Regs {
	u64 gpr[16]; /* hardware order, [4] is RSP */
};

extern "C" {
u64 insn_test_host_rsp;
u64 insn_test_code;
void insn_test_run(Regs *regs);
/* Loads all sixteen registers and jumps to the code, which jumps back. */
asm(R"(
	.text
	.globl	insn_test_run, insn_test_back
insn_test_run:
	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
	mov %rsp, insn_test_host_rsp(%rip)
	mov %rdi, %rax
	mov 8(%rax), %rcx
	mov 16(%rax), %rdx
	mov 24(%rax), %rbx
	mov 32(%rax), %rsp
	mov 40(%rax), %rbp
	mov 48(%rax), %rsi
	mov 56(%rax), %rdi
	mov 64(%rax), %r8
	mov 72(%rax), %r9
	mov 80(%rax), %r10
	mov 88(%rax), %r11
	mov 96(%rax), %r12
	mov 104(%rax), %r13
	mov 112(%rax), %r14
	mov 120(%rax), %r15
	mov 0(%rax), %rax
	jmp *insn_test_code(%rip)
insn_test_back:
	mov insn_test_host_rsp(%rip), %rsp
	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
	ret
)");
extern const char insn_test_back[];
}

constexpr usize target_size = 4096, gs_offset = 64;

class Native {
public:
	Native()
	{
		/* Near each other, for RIP-relative stores; low, for addresses of 32 bits. */
		void *at = mmap(nullptr, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

		EXPECT_NE(at, MAP_FAILED);
		code_ = static_cast<u8 *>(at);
		target = code_ + 4096;
		insn_test_code = reinterpret_cast<u64>(code_);
		EXPECT_EQ(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_offset), 0);
	}
	~Native()
	{
		munmap(code_, 2 * 4096);
	}
	[[nodiscard]] u64 rip() const
	{
		return reinterpret_cast<u64>(code_);
	}
	void run(const std::vector<u8> &insn, Regs regs)
	{
		u8 *p = code_;
		const char *back = insn_test_back;

		memcpy(p, insn.data(), insn.size());
		p += insn.size();
		memcpy(p, "\xff\x25\0\0\0\0", 6);
		memcpy(p + 6, &back, 8);
		insn_test_run(&regs);
	}

	u8 *target;

private:
	u8 *code_;
};

using Random = std::mt19937_64;

std::vector<u8> random_store(Random &rnd)
{
	static const u8 prefixes[] = {0x66, 0x65, 0x26, 0x2e, 0x36, 0x3e};
	static const u8 opcodes[] = {0x88, 0x89, 0xc6, 0xc7};
	std::vector<u8> insn;

	for (u64 n = rnd() % 3; n; n--)
		insn.push_back(prefixes[rnd() % sizeof(prefixes)]);
	if (rnd() % 3)
		insn.push_back(0x40 | rnd() % 16);

	const u8 op = opcodes[rnd() % 4];
	u8 modrm = static_cast<u8>(rnd() % 192);

	if (op >= 0xc6)
		modrm &= 0xc7;
	insn.push_back(op);
	insn.push_back(modrm);
	while (insn.size() < 15)
		insn.push_back(static_cast<u8>(rnd()));
	return insn;
}

rdt_cpu cpu_of(Regs &r, u64 rip)
{
	rdt_cpu cpu = {};

	cpu.gpr = reinterpret_cast<rdt_u64 *>(r.gpr);
	cpu.rsp = r.gpr[4];
	cpu.rip = rip;
	cpu.va_bits = 48;
	return cpu;
}

bool decode(const std::vector<u8> &insn, const rdt_cpu &cpu, rdt_store &out)
{
	/* Exactly as many bytes as there are, so that ASan sees one read too many. */
	const std::vector<u8> copy(insn);

	return decode_store(copy.data(), static_cast<unsigned>(copy.size()), cpu, out);
}

/* Make the store hit @want by changing one register, or its displacement. */
bool aim(std::vector<u8> &insn, Regs &regs, u64 rip, u64 want)
{
	rdt_store s;

	for (unsigned r = 0; r < 16; r++) {
		Regs trial = regs;

		if (!decode(insn, cpu_of(trial, rip), s))
			return false;
		for (int scale = 0; scale < 4; scale++) {
			trial = regs;
			trial.gpr[r] += (want - s.address) >> scale;

			rdt_store now;

			if (decode(insn, cpu_of(trial, rip), now) && now.address == want) {
				regs = trial;
				return true;
			}
		}
	}
	/* RIP-relative or absolute: a displacement of four bytes somewhere in it. */
	for (unsigned i = 2; i + 4 <= s.len; i++) {
		std::vector<u8> trial = insn;
		u32 d;

		memcpy(&d, &trial[i], 4);
		d += static_cast<u32>(want - s.address);
		memcpy(&trial[i], &d, 4);

		rdt_store now;

		if (decode(trial, cpu_of(regs, rip), now) && now.address == want) {
			insn = trial;
			return true;
		}
	}
	return false;
}

} // namespace

TEST(A10_Insn, StoresWhatTheProcessorStores)
{
	Native cpu;
	Random rnd(1);
	unsigned ran = 0, relative = 0, by_gs = 0, high = 0;

	for (int i = 0; i < 30000; i++) {
		std::vector<u8> insn = random_store(rnd);
		Regs regs;

		for (u64 &r : regs.gpr)
			r = rnd();

		const bool gs = [&] {
			rdt_store s;

			return decode(insn, cpu_of(regs, cpu.rip()), s) && s.seg == RDT_SEG_GS;
		}();
		const u64 offset = 64 + rnd() % (target_size - 128);
		const u64 want = reinterpret_cast<u64>(cpu.target) + offset - (gs ? gs_offset : 0);

		if (!aim(insn, regs, cpu.rip(), want))
			continue;

		rdt_store s = {};

		ASSERT_TRUE(decode(insn, cpu_of(regs, cpu.rip()), s));
		ASSERT_LE(s.len, 15);
		insn.resize(s.len);
		{
			/* One byte less, and it is not all there. */
			rdt_store none;
			std::vector<u8> cut(insn.begin(), insn.end() - 1);

			ASSERT_FALSE(decode(cut, cpu_of(regs, cpu.rip()), none));
		}

		std::vector<u8> expected(target_size);

		for (u8 &b : expected)
			b = static_cast<u8>(rnd());
		memcpy(cpu.target, expected.data(), target_size);
		memcpy(&expected[offset], &s.value, s.size);
		cpu.run(insn, regs);
		ASSERT_EQ(memcmp(cpu.target, expected.data(), target_size), 0)
			<< testing::PrintToString(insn);
		ran++;
		regs = {};
		relative += decode(insn, cpu_of(regs, cpu.rip()), s) && s.address > cpu.rip();
		by_gs += gs;
		high += s.size == 1 && s.value > 0;
	}
	EXPECT_GT(ran, 15000u);
	EXPECT_GT(relative, 50u);
	EXPECT_GT(by_gs, 300u);
	EXPECT_GT(high, 300u);
}

TEST(A10_Insn, NothingElseIsAStore)
{
	Regs regs = {};
	rdt_cpu cpu = cpu_of(regs, 0x1000);
	rdt_store s;
	const std::vector<std::vector<u8>> others = {
		{},
		{0x88},
		{0x88, 0xc0},                   /* mov al, al */
		{0x8a, 0x00},                   /* a load */
		{0xc6, 0x08, 0x00},             /* C6 /1 */
		{0xc7, 0xf8, 0, 0, 0, 0},       /* xbegin */
		{0xc7, 0x38, 0, 0, 0, 0},
		{0xf0, 0x89, 0x00},             /* lock mov */
		{0xf3, 0xc6, 0x00, 0x00},       /* xrelease mov */
		{0x67, 0x89, 0x00},             /* 32-bit address */
		{0x48, 0x66, 0x89, 0x00, 0x00}, /* REX that does not count: not understood */
		{0x48, 0x40, 0x89, 0x00},
		{0x0f, 0xc3, 0x00},             /* movnti */
		{0xa3, 0, 0, 0, 0, 0, 0, 0, 0}, /* moffs */
		std::vector<u8>(15, 0x66),
		{0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x89, 0x00},
	};

	for (const auto &insn : others)
		EXPECT_FALSE(decode(insn, cpu, s)) << testing::PrintToString(insn);
	EXPECT_TRUE(decode({0x89, 0x00}, cpu, s));
	cpu.va_bits = 0;
	EXPECT_FALSE(decode({0x89, 0x00}, cpu, s));
}

TEST(A10_Insn, AnyBytes)
{
	Random rnd(2);
	Regs regs = {};
	const rdt_cpu cpu = cpu_of(regs, 0);

	for (int i = 0; i < 300000; i++) {
		std::vector<u8> insn(rnd() % 17);
		rdt_store s = {};

		for (u8 &b : insn)
			b = static_cast<u8>(rnd() % 4 ? rnd() : 0x66 + rnd() % 2 * 0x22);
		if (decode(insn, cpu, s)) {
			EXPECT_LE(s.len, insn.size());
			EXPECT_TRUE(s.size == 1 || s.size == 2 || s.size == 4 || s.size == 8);
		}
	}
}
