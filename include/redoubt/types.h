// SPDX-License-Identifier: GPL-2.0
/*
 * The few types and helpers that src/core needs and that a freestanding C++20
 * compiler does not bring along. No standard header is included, so that the
 * same file serves a kernel module and a user-space library.
 */
#pragma once

#if __STDC_HOSTED__
#include <new>
#else
inline void *operator new(__SIZE_TYPE__, void *p) noexcept
{
	return p;
}
#endif

namespace redoubt {

using u8 = __UINT8_TYPE__;
using u16 = __UINT16_TYPE__;
using u32 = __UINT32_TYPE__;
using u64 = __UINT64_TYPE__;
using s64 = __INT64_TYPE__;
using usize = __SIZE_TYPE__;

using gpa_t = u64; /* guest-physical address */
using gfn_t = u64; /* guest frame number */

inline constexpr unsigned page_shift = 12;
inline constexpr u64 page_size = 1ull << page_shift;
/* x86 defines 52 bits of physical address. */
inline constexpr unsigned gfn_bits = 52 - page_shift;
inline constexpr gfn_t gfn_limit = 1ull << gfn_bits;

/* Not empty and wholly below gfn_limit; cannot wrap. */
constexpr bool valid_frames(gfn_t first, u64 count)
{
	return count != 0 && first < gfn_limit && count <= gfn_limit - first;
}

/*
 * The answer of every core operation that can fail. Each function's comment
 * says which of these it gives; after anything but Ok nothing has changed.
 */
enum class [[nodiscard]] Status : u8 {
	Ok,	 /* done; for a search: found */
	None,	 /* nothing there */
	Inval,	 /* an argument that can never be right */
	NoMem,	 /* host memory */
	NoNodes, /* guest-donated node pages are used up */
	Overlap, /* collides with what is there */
	Refused, /* policy says no */
	Corrupt, /* guest-resident data failed a check: fail closed */
	Busy,	 /* a writer is active: take the policy mutex and try again */
};

/*
 * One plain load or store that the compiler may neither tear nor repeat.
 * (The forms of the builtins that take enums with every compiler.)
 */
template <class T> [[nodiscard]] inline T read_once(const T &v)
{
	T x;

	__atomic_load(&v, &x, __ATOMIC_RELAXED);
	return x;
}

template <class T> inline void write_once(T &v, T x)
{
	__atomic_store(&v, &x, __ATOMIC_RELAXED);
}

/* Pairs: what was written before store_release() is seen after load_acquire(). */
template <class T> [[nodiscard]] inline T load_acquire(const T &v)
{
	T x;

	__atomic_load(&v, &x, __ATOMIC_ACQUIRE);
	return x;
}

template <class T> inline void store_release(T &v, T x)
{
	__atomic_store(&v, &x, __ATOMIC_RELEASE);
}

inline void cpu_relax()
{
	__builtin_ia32_pause();
}

template <class T> constexpr T min_of(T a, T b)
{
	return b < a ? b : a;
}

template <class T> constexpr T max_of(T a, T b)
{
	return a < b ? b : a;
}

/* Not __builtin_popcountll: without POPCNT that is a call into libgcc. */
constexpr unsigned popcount(u64 x)
{
	x -= (x >> 1) & 0x5555555555555555ull;
	x = (x & 0x3333333333333333ull) + ((x >> 2) & 0x3333333333333333ull);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return static_cast<unsigned>((x * 0x0101010101010101ull) >> 56);
}

/* For types that own memory or are shared by address. */
class Pinned {
public:
	Pinned(const Pinned &) = delete;
	Pinned &operator=(const Pinned &) = delete;

protected:
	constexpr Pinned() = default;
	~Pinned() = default;
};

} // namespace redoubt
