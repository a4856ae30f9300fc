# SPDX-License-Identifier: GPL-2.0
"""The emulated host's root file system, as cpio archives for its initrd.

Layers, each laid over the one before (the kernel unpacks concatenated
archives in order):

  base-<series>   busybox, the agent, kernel modules           cached
  guest           QEMU with its libraries and ROMs, the guest  cached
  run             scripts/lib/rootfs, what the project built, the overlays

A cached layer's name holds a hash of what went into it, so nothing has to be
invalidated by hand.
"""
import fcntl
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import time

import bootimage

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
FORMAT = "9"            # part of every layer's hash: raise it when this file changes the layout

# Modules the emulated host carries (with what they depend on). Only those that
# /etc/modules names are loaded at boot.
HOST_MODULES = """
kvm kvm_amd kvm_intel irqbypass
virtio_pci virtio_console virtio_blk virtio_net virtio_rng virtio_balloon
vhost_vsock vhost_net vmw_vsock_virtio_transport tun bridge
9p 9pnet_virtio overlay loop squashfs isofs ext4 crc32c_generic vfat nls_ascii nls_cp437
ata_piix sd_mod sr_mod nvme
vfio vfio_pci vfio_iommu_type1 e1000e igb
msr cpuid configfs
gcm ghash_generic ctr
""".split()

# The guest's: what its devices need, and what a rootkit test may load.
GUEST_MODULES = """
virtio_pci virtio_console virtio_blk virtio_net virtio_rng virtio_balloon
vmw_vsock_virtio_transport 9p 9pnet_virtio overlay loop msr nvme
dm_crypt xts ecb crypto_simd ext4 crc32c_generic
""".split()

QEMU_ROMS = """
/usr/share/seabios/bios-256k.bin /usr/share/seabios/bios.bin /usr/share/seabios/bios-microvm.bin
/usr/share/seabios/vgabios-stdvga.bin
/usr/share/qemu/kvmvapic.bin /usr/share/qemu/linuxboot.bin /usr/share/qemu/linuxboot_dma.bin
/usr/share/qemu/pvh.bin /usr/share/qemu/qboot.rom
/usr/lib/ipxe/qemu/efi-virtio.rom
""".split()


class Tree:
    """Paths of an image and what is at them; writes itself as a newc cpio."""

    def __init__(self):
        self.entries = {}

    def _put(self, path, mode, data=b"", rdev=(0, 0)):
        path = path.strip("/")
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.dir(parent)
        self.entries[path] = (mode, data, rdev)

    def dir(self, path, mode=0o755):
        self._put(path, stat.S_IFDIR | mode)

    def symlink(self, path, target):
        self._put(path, stat.S_IFLNK | 0o777, target.encode())

    def text(self, path, text, mode=0o644):
        self._put(path, stat.S_IFREG | mode, text.encode())

    def data(self, path, data, mode=0o644):
        self._put(path, stat.S_IFREG | mode, data)

    def node(self, path, kind, mode, major, minor):
        self._put(path, kind | mode, rdev=(major, minor))

    def file(self, path, source, mode=None):
        st = os.stat(source)
        self._put(path, stat.S_IFREG | (stat.S_IMODE(st.st_mode) if mode is None else mode), source)

    def lay_over(self, directory):
        """Everything under a directory of this machine, owned by root."""
        for where, dirs, files in os.walk(directory):
            rel = os.path.relpath(where, directory)
            for name in sorted(dirs + files):
                src = os.path.join(where, name)
                dst = os.path.normpath(os.path.join(rel, name))
                st = os.lstat(src)
                if stat.S_ISLNK(st.st_mode):
                    self.symlink(dst, os.readlink(src))
                elif stat.S_ISDIR(st.st_mode):
                    self.dir(dst, stat.S_IMODE(st.st_mode))
                elif stat.S_ISREG(st.st_mode):
                    self.file(dst, src)
                else:
                    raise ValueError(f"{src}: not a file, directory or link")

    def write(self, path):
        with open(path, "wb") as out:
            for ino, name in enumerate(sorted(self.entries), 1):
                mode, data, rdev = self.entries[name]
                if isinstance(data, str):
                    with open(data, "rb") as f:
                        data = f.read()
                _cpio_entry(out, ino, name, mode, data, rdev)
            _cpio_entry(out, 0, "TRAILER!!!", 0, b"", (0, 0))
            out.write(b"\0" * (-out.tell() % 512))


def _cpio_entry(out, ino, name, mode, data, rdev):
    raw = name.encode() + b"\0"
    nlink = 2 if stat.S_ISDIR(mode) else 1
    fields = (ino, mode, 0, 0, nlink, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0)
    out.write(b"070701" + b"".join(b"%08X" % f for f in fields) + raw)
    out.write(b"\0" * (-(110 + len(raw)) % 4))
    out.write(data)
    out.write(b"\0" * (-len(data) % 4))


def run(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False).stdout


def is_dynamic_elf(path):
    """True for a program or library that names an interpreter or libraries."""
    with open(path, "rb") as f:
        if f.read(4) != b"\x7fELF":
            return False
    return not path.endswith(".ko") and "/" in run("ldd", path)


def libraries(path):
    """The shared objects a program needs, the loader included, as ldd finds them."""
    found = []
    for line in run("ldd", path).splitlines():
        if "not found" in line:
            raise RuntimeError(f"{path}: {line.strip()}")
        m = re.search(r"(/\S+) \(0x", line)
        if m:
            found.append(m.group(1))
    return found


def add_with_libraries(tree, path, source):
    tree.file(path, source, 0o755)
    for lib in libraries(source):
        tree.file(lib, os.path.realpath(lib), 0o755)


class Kernel:
    """One unpacked Debian kernel of scripts/setup."""

    def __init__(self, cache, series):
        self.series = series
        self.dir = f"{cache}/kernels/{series}"
        with open(f"{self.dir}/version") as f:
            self.release = f.read().strip()
        self.vmlinuz = f"{self.dir}/vmlinuz"
        self.vmlinux = f"{self.dir}/vmlinux"
        self.modules = f"{self.dir}/lib/modules/{self.release}"
        self.deps = {}          # module name -> (path, [paths it needs, in load order reversed])
        with open(f"{self.modules}/modules.dep") as f:
            for line in f:
                path, needs = line.split(":")
                self.deps[_module_name(path)] = (path, needs.split())
        with open(f"{self.modules}/modules.builtin") as f:
            self.builtin = {_module_name(line.strip()) for line in f}

    def boot_image(self, cache, slot, limit):
        """The kernel unpacked (see bootimage.py), at an address drawn on this
        machine, up to limit MiB above where it was linked; 0: right there."""
        def build(path):
            delta = random.randrange(0, limit << 20, bootimage.ALIGN) if limit else 0
            bootimage.build(self.vmlinuz, self.vmlinux, delta, bool(limit), path)
        sources = [f"{HERE}/bootimage.py", f"{HERE}/bootstub.S"]
        return cached(cache, f"boot-{self.series}-{slot}", _key(self.vmlinux, str(limit), *sources), build)

    def closure(self, names):
        paths = set()
        for name in names:
            if name in self.builtin:
                continue
            path, needs = self.deps[name]
            paths.update([path] + needs)
        return sorted(paths)

    def add_modules(self, tree, names):
        """Modules by name with all they need, and what modprobe reads."""
        where = f"lib/modules/{self.release}"
        paths = self.closure(names)
        for path in paths:
            tree.file(f"{where}/{path}", f"{self.modules}/{path}", 0o644)
        tree.text(f"{where}/modules.dep", self.dep_lines(paths))
        mine = {_module_name(path) for path in paths}
        with open(f"{self.modules}/modules.alias") as f:
            tree.text(f"{where}/modules.alias",
                      "".join(line for line in f if line.split()[-1] in mine))
        tree.file(f"{where}/modules.builtin", f"{self.modules}/modules.builtin", 0o644)

    def add_built(self, tree, names, files, root=""):
        """Adds .ko files built elsewhere to an image that add_modules() filled with names."""
        where = f"{root}lib/modules/{self.release}"
        built = {_module_name(ko): ko for ko in files}
        needs = {name: run("/sbin/modinfo", "-F", "depends", ko).strip().split(",")
                 for name, ko in built.items()}

        def all_needed(name):
            paths = []
            for n in needs[name]:
                n = n.replace("-", "_")
                if n in built:
                    paths += [f"extra/{os.path.basename(built[n])}"] + all_needed(n)
                elif n in self.deps:
                    paths += [self.deps[n][0]] + self.deps[n][1]
            return paths

        lines = self.dep_lines(self.closure(names))
        for name, ko in built.items():
            tree.file(f"{where}/extra/{os.path.basename(ko)}", ko, 0o644)
            lines += f"extra/{os.path.basename(ko)}: {' '.join(dict.fromkeys(all_needed(name)))}\n"
        tree.text(f"{where}/modules.dep", lines)

    def dep_lines(self, paths):
        return "".join(f"{p}: {' '.join(self.deps[_module_name(p)][1])}\n" for p in paths)


def _module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def _key(*parts):
    """Hash of strings and files. The project's own count by content, so that
    checkouts share a cache; the machine's by path, size and time."""
    h = hashlib.sha256(FORMAT.encode())
    for p in parts:
        if p.startswith(TOP + "/"):
            with open(p, "rb") as f:
                h.update(os.path.relpath(p, TOP).encode() + b"\0" + hashlib.sha256(f.read()).digest())
            continue
        h.update(p.encode() + b"\0")
        if os.path.exists(p):
            st = os.stat(p)
            h.update(f"{st.st_size} {st.st_mtime_ns}".encode())
    return h.hexdigest()[:16]


def cached(cache, name, key, build):
    """Path of what build(path) makes, made when there is none of that key. What
    other keys left goes after a while: a run that started earlier may use it."""
    directory = f"{cache}/lab"
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/{name}-{key}"
    if os.path.exists(path):
        return path
    with open(f"{directory}/{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path
        build(f"{path}.tmp")
        os.rename(f"{path}.tmp", path)
        for old in os.listdir(directory):
            old = f"{directory}/{old}"
            if (re.fullmatch(re.escape(name) + r"-[0-9a-f]{16}", os.path.basename(old)) and old != path
                    and os.path.getmtime(old) < time.time() - 600):
                os.unlink(old)
    return path


def compiled(name, flags, cache):
    """A helper in C, built on this machine."""
    source = f"{HERE}/{name}.c"

    def build(path):
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-s", *flags, "-o", f"{path}.{os.getpid()}.tmp", source], check=True)
        os.rename(f"{path}.{os.getpid()}.tmp", path)
    return cached(cache, name, _key(source, *flags), build)


def agent(cache):
    return compiled("labagent", ["-static"], cache)


def concatenate(layers, path):
    with open(path, "wb") as out:
        for layer in layers:
            with open(layer, "rb") as f:
                shutil.copyfileobj(f, out, 1 << 20)


def skeleton(cache):
    """busybox, the agent and the directories both host and guest start from."""
    tree = Tree()
    for d in "proc sys dev run root mnt etc var/log home lib64".split():
        tree.dir(d)
    tree.dir("tmp", 0o1777)
    tree.dir("root", 0o700)
    tree.node("dev/console", stat.S_IFCHR, 0o600, 5, 1)
    tree.node("dev/null", stat.S_IFCHR, 0o666, 1, 3)
    tree.file("bin/busybox", "/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox", 0o755)
    for applet in run("busybox", "--list-full").split():
        if applet != "bin/busybox":
            tree.symlink(applet, "/bin/busybox")
    tree.file("usr/bin/labagent", agent(cache), 0o755)
    return tree


def base_layer(cache, kernel):
    def build(path):
        tree = skeleton(cache)
        kernel.add_modules(tree, HOST_MODULES)
        tree.file("init", init, 0o755)
        tree.write(path)
    init = f"{HERE}/rootfs/init"
    key = _key("/usr/bin/busybox", os.path.basename(agent(cache)), kernel.modules + "/modules.dep",
               " ".join(HOST_MODULES), init)
    return cached(cache, f"base-{kernel.series}", key, build)


def guest_layer(cache, guest):
    """The inner QEMU and the guest's kernel and initramfs (a cpio in the cpio)."""
    guestfs = f"{HERE}/guestfs"
    scripts = sorted(os.path.join(d, f) for d, _, fs in os.walk(guestfs) for f in fs)
    qemu = "/usr/bin/qemu-system-x86_64"

    def build(path):
        inner = skeleton(cache)
        guest.add_modules(inner, GUEST_MODULES)
        inner.lay_over(guestfs)
        inner.write(f"{path}.inner")
        tree = Tree()
        add_with_libraries(tree, qemu, qemu)
        for rom in QEMU_ROMS:
            if os.path.exists(rom):
                tree.file(rom, os.path.realpath(rom), 0o644)
        tree.file("guest/vmlinuz", guest.vmlinuz, 0o644)
        tree.file("guest/unpacked", guest.boot_image(cache, "guest", 32), 0o644)
        tree.file("guest/initramfs.cpio", f"{path}.inner", 0o644)
        tree.text("guest/release", guest.release + "\n")
        tree.write(path)
        os.unlink(f"{path}.inner")
    key = _key(qemu, os.path.basename(agent(cache)), guest.vmlinuz, guest.modules + "/modules.dep",
               " ".join(GUEST_MODULES), f"{HERE}/bootimage.py", f"{HERE}/bootstub.S", *scripts)
    return cached(cache, f"guest-{guest.series}", key, build)


def run_layer(path, kernel, guest, overlays, crash=False):
    """What changes from run to run. Returns nothing; writes the cpio to path."""
    tree = Tree()
    if crash:
        tree.file("boot/vmlinuz", kernel.vmlinuz, 0o644)
    tree.lay_over(f"{HERE}/rootfs")
    tree.data("etc/lab.seed", os.urandom(64), 0o600)
    kernel.add_built(tree, HOST_MODULES, built_modules(f"{TOP}/build/{kernel.series}"))
    if guest:
        guest.add_built(tree, GUEST_MODULES,
                        built_modules(f"{TOP}/build/{guest.series}/guest-driver"), "guest/overlay/")
    for directory in (f"{TOP}/build/bin", f"{TOP}/build/tools"):
        if os.path.isdir(directory):
            for name in sorted(os.listdir(directory)):
                if os.access(f"{directory}/{name}", os.X_OK) and os.path.isfile(f"{directory}/{name}"):
                    tree.file(f"usr/local/bin/{name}", f"{directory}/{name}", 0o755)
    for overlay in [f"{TOP}/build/lab-overlay"] + overlays:
        if os.path.isdir(overlay):
            tree.lay_over(overlay)
    # A program of this machine comes with its libraries, in the guest's part too.
    for name, (mode, data, _) in list(tree.entries.items()):
        if stat.S_ISREG(mode) and mode & 0o111 and isinstance(data, str) and is_dynamic_elf(data):
            root = "guest/overlay" if name.startswith("guest/overlay/") else ""
            for lib in libraries(data):
                tree.file(root + lib, os.path.realpath(lib), 0o755)
    tree.write(path)


def built_modules(directory):
    if not os.path.isdir(directory):
        return []
    return sorted(f"{directory}/{n}" for n in os.listdir(directory) if n.endswith(".ko"))
