// SPDX-License-Identifier: GPL-2.0
/* Numbers as bytes, little endian, at any address. */
#pragma once

#include <redoubt/types.h>

namespace redoubt::standby {

inline void copy_bytes(void *to, const void *from, u64 n)
{
	if (n != 0)
		__builtin_memcpy(to, from, n);
}

inline u16 get16(const u8 *p)
{
	return static_cast<u16>(p[0] | p[1] << 8);
}
inline u32 get32(const u8 *p)
{
	return get16(p) | u32{get16(p + 2)} << 16;
}
inline u64 get64(const u8 *p)
{
	return get32(p) | u64{get32(p + 4)} << 32;
}
inline void put16(u8 *p, u16 v)
{
	p[0] = static_cast<u8>(v);
	p[1] = static_cast<u8>(v >> 8);
}
inline void put32(u8 *p, u32 v)
{
	put16(p, static_cast<u16>(v));
	put16(p + 2, static_cast<u16>(v >> 16));
}
inline void put64(u8 *p, u64 v)
{
	put32(p, static_cast<u32>(v));
	put32(p + 4, static_cast<u32>(v >> 32));
}

} // namespace redoubt::standby
