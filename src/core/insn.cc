// SPDX-License-Identifier: GPL-2.0
/* Intel SDM volume 2, chapter 2 (formats) and MOV; the AMD manual agrees. */
#include "insn.h"

namespace redoubt {

namespace {

constexpr unsigned rsp_reg = 4, max_len = 15;

constexpr u8 rex_w = 8, rex_r = 4, rex_x = 2, rex_b = 1;

class Bytes {
public:
	Bytes(const u8 *p, unsigned n) : at_(p), end_(p + min_of(n, max_len)), begin_(p)
	{
	}
	/* Little endian, sign-extended. @n is 1, 2 or 4. */
	[[nodiscard]] bool take(unsigned n, s64 &out)
	{
		u64 v = 0;

		if (static_cast<unsigned>(end_ - at_) < n)
			return false;
		for (unsigned i = 0; i < n; i++)
			v |= static_cast<u64>(at_[i]) << (8 * i);
		at_ += n;
		out = static_cast<s64>(v << (64 - 8 * n)) >> (64 - 8 * n);
		return true;
	}
	[[nodiscard]] bool byte(u8 &out)
	{
		if (at_ == end_)
			return false;
		out = *at_++;
		return true;
	}
	[[nodiscard]] unsigned taken() const
	{
		return static_cast<unsigned>(at_ - begin_);
	}

private:
	const u8 *at_, *end_, *begin_;
};

u64 reg(const rdt_cpu &cpu, unsigned n)
{
	return n == rsp_reg ? cpu.rsp : cpu.gpr[n];
}

/* Without a REX prefix 4..7 are AH, CH, DH and BH. */
u64 byte_reg(const rdt_cpu &cpu, unsigned n, bool rex)
{
	return rex || n < 4 ? reg(cpu, n) : reg(cpu, n - 4) >> 8;
}

struct Address {
	u64 base = 0;
	bool rip = false; /* relative to the next instruction */
};

bool effective(Bytes &in, u8 mod, u8 rm, u8 rex, const rdt_cpu &cpu, Address &out)
{
	unsigned base = rm | (rex & rex_b ? 8u : 0u);
	bool has_base = true;
	s64 disp = 0;

	if (rm == 4) {
		u8 sib;

		if (!in.byte(sib))
			return false;

		unsigned index = (sib >> 3 & 7u) | (rex & rex_x ? 8u : 0u);

		base = (sib & 7u) | (rex & rex_b ? 8u : 0u);
		if (index != rsp_reg)
			out.base += reg(cpu, index) << (sib >> 6);
		has_base = mod != 0 || (sib & 7) != 5;
	} else if (mod == 0 && rm == 5) {
		has_base = false;
		out.rip = true;
	}
	if (has_base)
		out.base += reg(cpu, base);
	if (mod == 1 ? !in.take(1, disp) : (mod == 2 || !has_base) && !in.take(4, disp))
		return false;
	out.base += static_cast<u64>(disp);
	return true;
}

} // namespace

bool decode_store(const u8 *insn, unsigned n, const rdt_cpu &cpu, rdt_store &out)
{
	Bytes in(insn, n);
	bool narrow = false;
	u8 op, rex = 0, modrm;

	/* 32-bit addresses, LOCK (not for mov) and XRELEASE are none of ours. */
	if (!cpu.va_bits)
		return false;
	out.seg = RDT_SEG_NONE;
	for (;;) {
		if (!in.byte(op))
			return false;
		if (op == 0x66)
			narrow = true;
		else if (op == 0x64)
			out.seg = RDT_SEG_FS;
		else if (op == 0x65)
			out.seg = RDT_SEG_GS;
		else if (op != 0x26 && op != 0x2e && op != 0x36 && op != 0x3e)
			break;
	}
	if ((op & 0xf0) == 0x40) {
		rex = op;
		if (!in.byte(op))
			return false;
	}
	if (op != 0x88 && op != 0x89 && op != 0xc6 && op != 0xc7)
		return false;
	if (!in.byte(modrm))
		return false;

	u8 mod = modrm >> 6, field = modrm >> 3 & 7;
	bool immediate = op >= 0xc6;
	Address at;

	/* C6 and C7 with another number are other instructions. */
	if (mod == 3 || (immediate && field) || !effective(in, mod, modrm & 7, rex, cpu, at))
		return false;
	out.size = !(op & 1) ? 1 : rex & rex_w ? 8 : narrow ? 2 : 4;
	if (immediate) {
		s64 v;

		if (!in.take(min_of<unsigned>(out.size, 4), v))
			return false;
		out.value = static_cast<u64>(v);
	} else {
		unsigned r = field | (rex & rex_r ? 8u : 0u);

		out.value = out.size == 1 ? byte_reg(cpu, r, rex) : reg(cpu, r);
	}
	if (out.size < 8)
		out.value &= (1ull << (8 * out.size)) - 1;
	out.len = static_cast<u8>(in.taken());
	out.address = at.base + (at.rip ? cpu.rip + out.len : 0);
	return true;
}

} // namespace redoubt
