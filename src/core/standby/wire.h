// SPDX-License-Identifier: GPL-2.0
/*
 * The link's messages as bytes. A header of 64 bytes and a body, little endian, in a TLS stream: the stream proves
 * who sent it and that it is whole, so there is no checksum. It does not prove that the peer is sane: decode() takes
 * any bytes, reads none beyond those it was given, and lets nothing through that is not exactly of the form below.
 *
 *   header   magic "RDSB", version, type, flags (0), body bytes, 0; VM UUID; epoch; from, to (boots); sequence
 *   HELLO    min, max version (u16); name of the host, 32 bytes, zero-filled. UUID, epoch and to are 0
 *   PING     cookie u64; answer u8, 7 zeroes; then padding, any bytes. UUID 0
 *   BEGIN    flags u32; slots u32; each: first gfn, frames (u64)
 *   PAGES    first gfn u64; zero bitmap u64; data bytes u32; frames u16 (1 to 64); codec u8; 0; the data: the frames
 *	      that are not zero, in their order, whole; with a codec, compressed as one block
 *   SAME     first gfn u64; frames u32; 0 u32; their leaf hashes (image.h): the frame is what was sent before
 *   STATE    total bytes u64; offset u64; the bytes. The VMM's stream of the devices, in order
 *   END      digest; frames u64 (the VM's); state bytes u64
 *   LACKS    flags u32 (1: the device state, too; 2: more ranges than fit); ranges u32; each: first gfn, frames (u64)
 *   PREPARED, COMMIT  digest
 *   READY    why not u32 (enum Unready); 0 u32; frames of the RAM file u64. Epoch 0
 *   the others: no body
 */
#pragma once

#include "machine.h"

namespace redoubt::standby {

inline constexpr u32 wire_magic = 0x42534452; /* "RDSB" */
inline constexpr u8 wire_version = 1;
inline constexpr u32 header_bytes = 64;
inline constexpr u32 max_frames = 64;	    /* of PAGES: the bits of its bitmap */
inline constexpr u32 max_slots = 64;	    /* of BEGIN */
inline constexpr u32 max_same = 4096;	    /* of SAME */
inline constexpr u32 max_ranges = 4096;	    /* of LACKS */
inline constexpr u32 max_chunk = 256 << 10; /* of STATE; and what PING may be padded to */
inline constexpr u64 max_state = 256ull << 20;
inline constexpr u32 max_body = 24 + max_frames * page_size;
inline constexpr u32 name_bytes = 32;

inline constexpr u32 begin_live = 1; /* bounded mode: the VM runs, frames come again and again until END */
inline constexpr u32 lacks_state = 1, lacks_more = 2;

/* READY: what keeps this host from taking the VM at this moment. Numbers are on the wire: only ever add. */
enum class Unready : u8 {
	No,	    /* a VMM waits */
	NotBegun,   /* the agent has not seen yet what is there */
	Stuck,	    /* State::Stuck */
	NoVmm,
	NotWaiting, /* a VMM, but not with -incoming defer */
	Refuses,    /* a VMM that cannot load what this agent would give it */
	Memory,	    /* no RAM file, or it is not mapped by that VMM */
};
const char *unready_text(Unready u);

/* How the data of PAGES are packed. */
enum class Codec : u8 { None = 0, Lz4 = 1, Zstd = 2 };

struct Uuid {
	u8 byte[16];

	[[nodiscard]] constexpr bool operator==(const Uuid &o) const
	{
		for (unsigned i = 0; i < 16; i++)
			if (byte[i] != o.byte[i])
				return false;
		return true;
	}
	[[nodiscard]] constexpr bool none() const
	{
		return *this == Uuid{};
	}
};

/* Frames [first, first + count), valid_frames(). */
struct Run {
	gfn_t first;
	u64 count;
};

/**
 * struct Header - of every message.
 * @msg: which. @body: bytes that follow. @vm: whose; none in HELLO and PING.
 * @from, @to: boots, boot_number(). @seq: the sender's count of messages on this connection, from 1.
 */
struct Header {
	Msg msg;
	u32 body;
	Uuid vm;
	u64 epoch;
	u64 from;
	u64 to;
	u64 seq;
};

/* ---- bytes to send: each writes what it says at @to, and returns its length ---------------------------------- */

/* The header, header_bytes. @h.body as the functions below returned. */
u32 put_header(u8 *to, const Header &h);
/* The bodies' own bytes, behind the header. Those of PAGES, SAME, STATE and PING: what stands before the data. */
u32 put_hello(u8 *to, const char *name);
u32 put_ping(u8 *to, u64 cookie, bool answer);
u32 put_begin(u8 *to, u32 flags, const Run *slots, u32 n);
u32 put_pages(u8 *to, gfn_t first, u32 frames, u64 zero, Codec codec, u32 data);
u32 put_same(u8 *to, gfn_t first, u32 frames);
u32 put_state(u8 *to, u64 total, u64 offset);
u32 put_end(u8 *to, const Digest &digest, u64 frames, u64 state_bytes);
u32 put_lacks(u8 *to, u32 flags, const Run *ranges, u32 n);
u32 put_digest(u8 *to, const Digest &digest); /* PREPARED, COMMIT */
u32 put_ready(u8 *to, Unready why, u64 frames);

/* ---- bytes that came --------------------------------------------------------------------------------------- */

/**
 * get_header() - is this the beginning of a message?
 * @p: header_bytes.
 *
 * Ok; Inval: never ours, the connection is to be closed; Refused: another version. After Ok h.body <= max_body and
 * fits the type: so many bytes may be awaited.
 */
Status get_header(const u8 *p, Header *h);

/* A body, unpacked; pointers go into the bytes that were decoded. */
struct Body {
	/* HELLO */
	u16 min, max;
	char name[name_bytes + 1];
	/* PING */
	u64 cookie;
	bool answer;
	/* BEGIN, LACKS */
	u32 flags;
	u32 ranges;
	/* BEGIN: slots, ascending, disjoint. LACKS: likewise. By range(). */
	const u8 *list;
	/* PAGES, SAME */
	gfn_t first;
	u32 frames;
	u64 zero;
	Codec codec;
	/* PAGES: the data. SAME: the hashes. STATE: the chunk. */
	const u8 *data;
	u32 data_bytes;
	/* STATE */
	u64 total, offset;
	/* END, PREPARED, COMMIT */
	Digest digest;
	u64 end_frames, end_state;
	/* READY */
	Unready unready;
	u64 ram_frames;

	[[nodiscard]] Run range(u32 i) const;
};

/**
 * get_body() - all of the message is there.
 * @h: of get_header(). @p: h.body bytes.
 *
 * Ok; Inval: some field is not what it may be: the connection is to be closed. What Ok promises: valid_frames() of
 * every range; PAGES: with Codec::None data_bytes is a page for each frame that is not zero, with another at most
 * that, and 0 exactly when all are zero; no bits of zero beyond frames; STATE: offset + data_bytes <= total <= max_state.
 */
Status get_body(const Header &h, const u8 *p, Body *b);

/* What the machine is told of a message. End: the caller adds whole and mine. */
Event to_event(const Header &h, const Body &b);
/* The machine's part of the header for an Act::Send. */
Header to_header(const Action &a, const Uuid &vm, u64 seq);

} // namespace redoubt::standby
