// SPDX-License-Identifier: GPL-2.0
#include "journal.h"
#include "bytes.h"

namespace redoubt::standby {

namespace {

/*
 * crc u32 of the rest; version u8; kind u8, flags in its upper half; sequence u16; epoch, boot, peer u64; digest.
 * The checksum's seed is the format's name: zeroes are no record.
 */
constexpr u32 seed = 0x42534452;
constexpr u8 version = 1;

constexpr bool known(Kind k)
{
	return k >= Kind::Run && k <= Kind::Discarded;
}

bool whole(const u8 *p)
{
	return get32(p) == crc32c(seed, p + 4, Journal::record_bytes - 4);
}

/* False: of a version, or of a kind, that is not known here. */
bool unpack(const u8 *p, Record *rec)
{
	if (p[4] != version)
		return false;
	rec->kind = static_cast<Kind>(p[5] & 15);
	rec->flags = static_cast<u8>(p[5] >> 4);
	rec->epoch = get64(p + 8);
	rec->boot = get64(p + 16);
	rec->peer = get64(p + 24);
	copy_bytes(rec->digest.byte, p + 32, digest_bytes);
	return known(rec->kind);
}

} // namespace

/* Bit by bit: a record is 60 bytes, written a few times in a handover. */
u32 crc32c(u32 start, const void *p, usize n)
{
	const u8 *b = static_cast<const u8 *>(p);
	u32 crc = ~start;

	while (n-- != 0) {
		crc ^= *b++;
		for (unsigned i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/*
 * Sequence numbers wrap. The whole records of one file are less than `slots` apart, so the difference to any one of
 * them, taken as signed, orders them.
 */
Status Journal::load(const void *file, usize n)
{
	const u8 *p = static_cast<const u8 *>(file);
	bool found = false, understood = false, zero = true;

	n = min_of(n, usize{file_bytes});
	for (usize i = 0; i < n && zero; i++)
		zero = p[i] == 0;
	*this = {};
	for (unsigned i = 0; (usize{i} + 1) * record_bytes <= n; i++) {
		const u8 *at = p + usize{i} * record_bytes;
		const u16 seq = get16(at + 6);

		if (!whole(at) || (found && static_cast<u16>(seq - seq_) >= 0x8000))
			continue;
		found = true;
		/* A newer program's promise is one, too: the one before it is not the last. */
		understood = unpack(at, &last_);
		seq_ = seq;
		slot_ = i;
	}
	if (found)
		return understood ? Status::Ok : Status::Corrupt;
	return zero ? Status::None : Status::Corrupt;
}

u64 Journal::next(const Record &rec, u8 (&out)[record_bytes])
{
	seq_++;
	slot_ = (slot_ + 1) % slots;
	last_ = rec;
	out[4] = version;
	out[5] = static_cast<u8>(static_cast<u8>(rec.kind) | rec.flags << 4);
	put16(out + 6, seq_);
	put64(out + 8, rec.epoch);
	put64(out + 16, rec.boot);
	put64(out + 24, rec.peer);
	copy_bytes(out + 32, rec.digest.byte, digest_bytes);
	put32(out, crc32c(seed, out + 4, record_bytes - 4));
	return u64{slot_} * record_bytes;
}

} // namespace redoubt::standby
