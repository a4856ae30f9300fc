# SPDX-License-Identifier: GPL-2.0
"""Moves an unpacked kernel to another address.

QEMU can start an unpacked kernel (PVH), which saves the emulated machine its
unpacking: half of a boot. But it is the unpacking stub that applies KASLR. So
the lab applies the relocations itself, as handle_relocations() of
arch/x86/boot/compressed/misc.c does, and keeps a few kernels at different
addresses to choose from: code that counts on the link address is found out.
The randomization of the direct map and of vmalloc space (the kernel's own,
which asks the stub's flag) stays off; boot vmlinuz to have it.
"""
import struct

START_KERNEL_MAP = 0xffffffff80000000
ALIGN = 2 << 20             # CONFIG_PHYSICAL_ALIGN
PT_LOAD, PT_NOTE = 1, 4
XEN_ELFNOTE_PHYS32_ENTRY = 18   # where PVH starts; left out of the relocations


def _segments(image):
    phoff, = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        at = phoff + i * size
        kind, _, offset, vaddr, paddr, filesz = struct.unpack_from("<IIQQQQ", image, at)
        yield at, kind, offset, vaddr, paddr, filesz


def _tables(image):
    """The three lists that the build appends to the image, read from its end:
    32-bit, inverse 32-bit, 64-bit, each with a zero before it."""
    end = len(image)
    for _ in range(3):
        at = end
        entries = []
        while True:
            at -= 4
            value, = struct.unpack_from("<i", image, at)
            if not value:
                break
            entries.append(value)
        yield entries
        end = at


def _move_pvh_entry(out, at, end, delta):
    while at < end:
        name, desc, kind = struct.unpack_from("<III", out, at)
        data = at + 12 + (name + 3 & ~3)
        if kind == XEN_ELFNOTE_PHYS32_ENTRY and out[at + 12:at + 16] == b"Xen\0":
            entry, = struct.unpack_from("<I", out, data)
            struct.pack_into("<I", out, data, entry + delta)
            return
        at = data + (desc + 3 & ~3)
    raise ValueError("no PVH entry")


def relocate(image, delta):
    """A copy of the image that runs delta bytes higher, physically and virtually."""
    if delta % ALIGN:
        raise ValueError("misaligned")
    out = bytearray(image)
    loads = [(paddr, filesz, offset) for _, kind, offset, _, paddr, filesz in _segments(image) if kind == PT_LOAD]

    def where(value):
        paddr = (value & 0xffffffffffffffff) - START_KERNEL_MAP
        for base, size, offset in loads:
            if base <= paddr < base + size:
                return offset + paddr - base
        raise ValueError(f"a relocation at {value & (1 << 64) - 1:#x}, outside every segment")

    for entries, fmt, sign in zip(_tables(image), ("<I", "<I", "<Q"), (1, -1, 1)):
        mask = (1 << 8 * struct.calcsize(fmt)) - 1
        for value in entries:
            at = where(value)
            old, = struct.unpack_from(fmt, out, at)
            struct.pack_into(fmt, out, at, (old + sign * delta) & mask)
    for at, kind, offset, vaddr, paddr, filesz in _segments(image):
        if kind == PT_NOTE:
            _move_pvh_entry(out, offset, offset + filesz, delta)
        if vaddr:           # the per-CPU segment's addresses are offsets
            vaddr += delta
        struct.pack_into("<QQ", out, at + 16, vaddr, paddr + delta)
    entry, = struct.unpack_from("<Q", image, 24)
    struct.pack_into("<Q", out, 24, entry + delta)
    return bytes(out)
