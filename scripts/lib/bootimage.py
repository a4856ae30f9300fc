# SPDX-License-Identifier: GPL-2.0
"""A boot image with the kernel already unpacked.

Unpacking itself is half of a kernel's boot in an emulator. So the lab unpacks
it here: the image keeps Debian's 16-bit setup code and header, has bootstub.S
for the unpacking stub, and behind it, at the address it will run at, the very
kernel that the stub would have unpacked.

The unpacking stub also applies KASLR. So this does too, as handle_relocations()
of arch/x86/boot/compressed/misc.c: the lab keeps a few images at different
addresses and draws one for each run. The rest of KASLR (direct map, vmalloc) is
the kernel's own doing and on.
"""
import os
import struct
import subprocess
import tempfile

START_KERNEL_MAP = 0xffffffff80000000
LINKED_AT = 16 << 20        # CONFIG_PHYSICAL_START
STUB_AT = 1 << 20
ALIGN = 2 << 20             # CONFIG_PHYSICAL_ALIGN
PT_LOAD = 1


def flatten(elf):
    """The kernel's segments as they lie in memory from LINKED_AT on, and the
    address just behind all it uses before it knows of any other memory."""
    phoff, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    image, end = bytearray(), 0
    for i in range(count):
        kind, _, offset, _, paddr, filesz, memsz = struct.unpack_from("<IIQQQQQ", elf, phoff + i * size)
        if kind != PT_LOAD:
            continue
        at = paddr - LINKED_AT
        image.extend(bytes(max(0, at + filesz - len(image))))
        image[at:at + filesz] = elf[offset:offset + filesz]
        end = max(end, paddr + memsz)
    return image, end


def relocation_tables(elf):
    """The three lists that the build appends to the kernel, read from the end:
    32-bit, inverse 32-bit, 64-bit, each with a zero before it."""
    at = len(elf)
    for _ in range(3):
        entries = []
        while True:
            at -= 4
            value, = struct.unpack_from("<i", elf, at)
            if not value:
                break
            entries.append(value)
        yield entries


def relocate(image, elf, delta):
    """Makes the flat image one that runs delta bytes higher."""
    for entries, fmt, sign in zip(relocation_tables(elf), ("<I", "<I", "<Q"), (1, -1, 1)):
        mask = (1 << 8 * struct.calcsize(fmt)) - 1
        for value in entries:
            at = (value & (1 << 64) - 1) - START_KERNEL_MAP - LINKED_AT
            old, = struct.unpack_from(fmt, image, at)
            struct.pack_into(fmt, image, at, (old + sign * delta) & mask)


def stub(kaslr, entry):
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstub.S")
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["gcc", "-c", "-m32", "-o", f"{d}/o", source], check=True)
        subprocess.run(["ld", "-melf_i386", f"-Ttext={STUB_AT:#x}", "-o", f"{d}/elf", f"{d}/o"], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", f"{d}/elf", f"{d}/bin"], check=True)
        with open(f"{d}/bin", "rb") as f:
            code = f.read()
    return code[:-8] + struct.pack("<II", kaslr, entry)


def build(vmlinuz, vmlinux, delta, kaslr, path):
    """Writes the boot image; delta is how far above its link address it runs."""
    if delta % ALIGN:
        raise ValueError("misaligned")
    with open(vmlinuz, "rb") as f:
        setup = bytearray(f.read(64 << 10))
    with open(vmlinux, "rb") as f:
        elf = f.read()
    del setup[((setup[0x1f1] or 4) + 1) * 512:]
    image, end = flatten(elf)
    relocate(image, elf, delta)
    entry, = struct.unpack_from("<Q", elf, 24)
    kernel = image.rstrip(b"\0")        # the rest is .bss, which the kernel clears
    code = stub(int(kaslr), entry + delta)
    body = code + bytes(LINKED_AT + delta - STUB_AT - len(code)) + kernel
    body += bytes(-len(body) % 16)
    struct.pack_into("<I", setup, 0x1f4, len(body) // 16)   # syssize
    struct.pack_into("<I", setup, 0x214, STUB_AT)           # code32_start
    setup[0x234] = 0                                        # relocatable_kernel: no
    struct.pack_into("<H", setup, 0x236, 0)                 # xloadflags: no 64-bit entry
    struct.pack_into("<Q", setup, 0x258, STUB_AT)           # pref_address
    struct.pack_into("<I", setup, 0x260, end + delta - STUB_AT)     # init_size
    with open(path, "wb") as f:
        f.write(setup + body)
