// SPDX-License-Identifier: GPL-2.0
/*
 * The standby's journal: what a host has promised about one VM, on its disk.
 *
 * A file of Journal::slots records of 64 bytes, one 4096-byte block, preallocated, written with O_DSYNC (or
 * fdatasync where the record says so). A record goes over the oldest one; the last whole one counts. So a write
 * that was torn, or never came to the disk, leaves the record before it.
 *
 * Nothing here allocates or does I/O: the agent reads the file and hands over its bytes. Those are not trusted
 * to be whole, only not to be forged: a checksum, no key.
 */
#pragma once

#include <redoubt/types.h>

namespace redoubt::standby {

inline constexpr unsigned digest_bytes = 32;

/** struct Digest - SHA-256 over an image (image.h). All zero: none. */
struct Digest {
	u8 byte[digest_bytes];

	[[nodiscard]] constexpr bool operator==(const Digest &o) const
	{
		u8 diff = 0;

		for (unsigned i = 0; i < digest_bytes; i++)
			diff = static_cast<u8>(diff | (byte[i] ^ o.byte[i]));
		return diff == 0;
	}
	[[nodiscard]] constexpr bool none() const
	{
		return *this == Digest{};
	}
};

/**
 * boot_number - a boot of a host, as records and messages name it.
 * @id: the 16 bytes of /proc/sys/kernel/random/boot_id. Never 0, which is "not known".
 */
constexpr u64 boot_number(const u8 (&id)[16])
{
	u64 x = 0;

	for (unsigned i = 0; i < 16; i++)
		x ^= u64{id[i]} << 8 * (i % 8);
	return x != 0 ? x : 1;
}

/* What a record says. The numbers are on disk: only ever add. */
enum class Kind : u8 {
	None = 0,
	Run = 1,       /* this host may run the VM, in the boot named */
	Started = 2,   /* and has begun to: an image must not be loaded again */
	Frozen = 3,
	Sealed = 4,    /* END may have gone out */
	Aborting = 5,  /* DISCARD may have gone out: COMMIT never will */
	Released = 6,  /* COMMIT may have gone out */
	Void = 7,      /* what ran here is gone */
	Complete = 8,  /* PREPARED may have gone out */
	Discarded = 9, /* nothing of this epoch or of one before it will ever be run here */
};

/* Flags of a record, 4 bits. */
inline constexpr u8 rec_image = 1;  /* Run: from the image of epoch - 1, whose digest is in the record */
inline constexpr u8 rec_cold = 2;   /* Run: from the disk */
inline constexpr u8 rec_ran = 8;    /* Aborting: the VM has run since: the image must never, whatever becomes of this host */
inline constexpr u8 rec_barred = 4; /* Frozen, Sealed, Aborting: COMMIT of an epoch before went out: never resume */

/**
 * struct Record - one record, unpacked.
 * @kind, @flags: what is promised. @epoch: for which attempt.
 * @boot: of this host, when it was written. @peer: of the other host, as far as was known; 0: not.
 * @digest: of the image, where one is promised.
 */
struct Record {
	Kind kind;
	u8 flags;
	u64 epoch;
	u64 boot;
	u64 peer;
	Digest digest;
};

/* crc32c(), Castagnoli, of @n bytes. @seed: of the bytes before them, or 0. */
u32 crc32c(u32 seed, const void *p, usize n);

class Journal {
public:
	static constexpr unsigned record_bytes = 64, slots = 64;
	static constexpr unsigned file_bytes = record_bytes * slots;

	/**
	 * load() - find the last whole record.
	 * @file: what could be read of the file, @n bytes. A short one (a file that was just made) is as if the rest
	 *	were zero.
	 *
	 * Ok: it is in last(). None: a file of zeroes, or empty: a VM that was never here. Corrupt: there is something,
	 * but no whole record, or the last one is of a version that is not known: fail closed, nothing is known about
	 * this VM.
	 */
	Status load(const void *file, usize n);

	[[nodiscard]] const Record &last() const
	{
		return last_;
	}

	/**
	 * next() - the bytes of a new record, and where they go.
	 * @rec: what to promise. @out: record_bytes.
	 *
	 * Return: the offset in the file. last() is the new one from here on; when it cannot be written the agent
	 * does not go on (Event::JournalFailed) and begins anew with load().
	 */
	u64 next(const Record &rec, u8 (&out)[record_bytes]);

private:
	Record last_ = {};
	u16 seq_ = 0;   /* of last_ */
	unsigned slot_ = slots - 1;
};

} // namespace redoubt::standby
