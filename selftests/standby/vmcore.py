# SPDX-License-Identifier: GPL-2.0
"""A crashed kernel's memory as a file, made up: a root, a VM's record, its page tables, its note, its memory. As
uapi/linux/redoubt_crash.h and tools/redoubtd/note.h have it."""
import struct
import uuid
import zlib

PAGE = 4096
ROOT, CPUS, CPU, RECORD, NOTE, TABLES, MEMORY = 0x1000, 0x2000, 0x3000, 0x8000, 0x100000, 0x2000000, 0x40000000
HVA = 0x7f0000000000
RELEASE = "made-up"
LAYOUT = f"release {RELEASE}\n"


def cbor(x):
    def head(major, n):
        for bits, code in ((0, None), (8, 24), (16, 25), (32, 26), (64, 27)):
            if bits == 0 and n < 24:
                return bytes([major << 5 | n])
            if bits and n < 1 << bits:
                return bytes([major << 5 | code]) + n.to_bytes(bits // 8, "big")
        raise ValueError(n)
    if isinstance(x, bool):
        return bytes([0xf5 if x else 0xf4])
    if isinstance(x, int):
        return head(0, x)
    if isinstance(x, bytes):
        return head(2, len(x)) + x
    if isinstance(x, str):
        return head(3, len(x.encode())) + x.encode()
    if isinstance(x, list):
        return head(4, len(x)) + b"".join(map(cbor, x))
    return head(5, len(x)) + b"".join(cbor(k) + cbor(v) for k, v in x.items())


def sealed(data, at):
    """With its CRC-32 at `at`"""
    return data[:at] + struct.pack("<I", zlib.crc32(data)) + data[at + 4:]


def boot_number(path):
    with open(path, encoding="ascii") as f:
        raw = bytes.fromhex(f.read().strip().replace("-", ""))
    return int.from_bytes(raw[:8], "little") ^ int.from_bytes(raw[8:], "little") or 1


def note(name, kind, epoch, boot, frames, state):
    return cbor({"form": 1, "vm": name, "frames": frames, "whole": True, "state": state, "taken": 0, "live": 0, "disks": [], "cpuid": [],
                 "queues": [], "record": {"kind": kind, "flags": 0, "epoch": epoch, "boot": boot, "peer": 0, "digest": bytes(32)}})


def tables(frames, gone=()):
    """Page tables for frames at HVA, from MEMORY on; those of `gone` are not there."""
    out = bytearray()

    def table(entries):
        nonlocal out
        at = TABLES + len(out)
        page = bytearray(PAGE)
        for i, e in entries:
            struct.pack_into("<Q", page, i * 8, e)
        out += page
        return at
    leaves = [table([(i, MEMORY + (first + i) * PAGE | 1) for i in range(min(512, frames - first)) if first + i not in gone])
              for first in range(0, frames, 512)]
    directory = table([(i, leaf | 1) for i, leaf in enumerate(leaves)])
    pointers = table([(HVA >> 30 & 511, directory | 1)])
    top = table([(HVA >> 39 & 511, pointers | 1)])
    return top, bytes(out)


def write(path, vm_uuid, memory, the_note, gone=()):
    """Returns the root's address, as redoubt-crash wants it."""
    frames = len(memory) // PAGE
    top, walk = tables(frames, gone)
    pages = [NOTE + i * PAGE for i in range(-(-len(the_note) // PAGE))]
    body = struct.pack("<QQQ", 0, frames, HVA) + struct.pack(f"<{len(pages)}Q", *pages)
    record = struct.pack("<QIIQQ16sQQQIIIIII", 0x20206d7654445221, 3, 0, RECORD, 96 + len(body), uuid.UUID(vm_uuid).bytes, 1, top, 0, 0, 1,
                         len(the_note), zlib.crc32(the_note), 0, 0) + body
    root = struct.pack("<QIIQIIQQ72sQ", 0x746f6f7254445221, 3, 0, ROOT, 4, 1, CPUS, 128 + 1024, RELEASE.encode(), 0)
    root = sealed(root, 12) + struct.pack("<256Q", RECORD, *[0] * 255)
    cpu = struct.pack("<QII4Q4Q4Q4Q", 0x2075706354445221, 0, 0, 0, 3, *[0] * 14)
    cpu = cpu[:64] + struct.pack("<Q", 1) + cpu[72:] + bytes(1024)         # online
    parts = [(ROOT, root), (CPUS, struct.pack("<Q", CPU)), (CPU, cpu), (RECORD, sealed(record, 12)), (NOTE, the_note), (TABLES, walk), (MEMORY, memory)]
    offset, heads = PAGE, b""
    for address, data in parts:
        heads += struct.pack("<IIQQQQQQ", 1, 7, offset, 0, address, len(data), len(data), 0)
        offset += -(-len(data) // PAGE) * PAGE
    with open(path, "wb") as f:
        f.write(struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(parts), 0, 0, 0) + heads)
        at = PAGE
        for _, data in parts:
            f.seek(at)
            f.write(data)
            at += -(-len(data) // PAGE) * PAGE
        f.truncate(at)
    return hex(ROOT)
