# SPDX-License-Identifier: GPL-2.0
"""The Intel host: Bochs with VMX and EPT.

A boot under Bochs takes minutes, and it is the same boot every time. So it is
done once: the host boots from an emulated CD, loads kvm_intel, parks just
before what differs from run to run is laid over its root, and Bochs' own save
function keeps it. A run restores that and puts its files in the second CD drive.
--cold boots without a snapshot.

The console (COM1) and the agent's channel (COM2) are TCP sockets on the
loopback: Bochs' file mode keeps the last lines in a buffer, sockets do not.
"""
import fcntl
import hashlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import tty

import labimage

# Emulated instructions in an emulated second, near what Bochs does in a real
# one. CPUID claims 3.5 GHz; tsc_early_khz= tells the kernel what the TSC really
# does, or its idea of a second would be 70 emulated ones.
IPS = 50_000_000
RUN_CD_SIZE = 1 << 30       # the kernel asks for the size once, before the snapshot
SNAPSHOTS_KEPT = 8
BOOT_LIMIT = 3600           # seconds for a boot that makes a snapshot
FORMAT = "1"                # raise when what a snapshot holds changes meaning

# usb_uhci belongs to the chipset and cannot be off. It stands last because a
# boot loads it last: a restored state finds its timers by number.
PLUGINS = ("voodoo=0, biosdev=1, busmouse=0, iodebug=0, ne2k=0, parallel=0, es1370=0, gameport=0, "
           "sb16=0, pcipnic=0, e1000=0, extfpuirq=1, speaker=0, serial=1, unmapped=1, usb_uhci=1")

BOCHSRC = """\
plugin_ctrl: {plugins}
display_library: term
memory: guest={mem}, host={mem}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={dir}/boot.iso, status=inserted
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path={dir}/run.img, status=inserted
cpu: model={cpu}, count={smp}, ips={ips}, reset_on_triple_fault=0
clock: sync=none, time0=utc
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{console}
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{channel}
log: {dir}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""

ISOLINUX = """\
default lab
prompt 0
label lab
  kernel /vmlinuz
  append initrd=/initrd {line}
"""


def listen():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(1)
    return s


class Ept:
    # Bochs' own exit status tells nothing: power-off is a "panic" to it.

    def __init__(self, run):
        self.run = run
        # tigerlake has IBT, which 6.12 enforces; 6.1 does not get through its boot there.
        self.cpu = run.args.cpu or ("corei7_skylake_x" if run.args.kernel == "6.1" else "tigerlake")
        self.logger = None

    def kernel_line(self):
        # quiet: each character on the console costs 4000 instructions. init
        # repeats what the kernel complained of, and raises the level then.
        return (f"console=ttyS0,115200 quiet panic=-1 printk.devkmsg=on tsc_early_khz={IPS // 1000} "
                "lab.channel=tty:/dev/ttyS1 lab.modules=kvm_intel,vhost_vsock lab.park=/dev/sr1 "
                # Bochs logs unaligned addresses to the page-modification log.
                "kvm_intel.pml=0 " + self.run.args.append).strip()

    def snapshot_key(self):
        a = self.run.args
        bochs = labimage.run("dpkg-query", "-W", "bochs", "bochsbios", "vgabios")
        parts = [FORMAT, bochs, os.path.basename(self.kernel()), self.cpu, str(a.smp), str(a.mem), str(IPS), PLUGINS, BOCHSRC,
                 self.kernel_line(), *map(os.path.basename, self.run.fixed_layers)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def kernel(self):
        """Unpacked: that is 4 of the 8 thousand million instructions of a boot."""
        a, cache = self.run.args, self.run.cache
        if a.vmlinuz:
            return self.run.kernel.vmlinuz
        if "nokaslr" in a.append.split():
            return self.run.kernel.boot_image(cache, "nokaslr", 0)
        return self.run.kernel.boot_image(cache, "ept", 64)

    def make_cd(self):
        d, iso = self.run.dir, f"{self.run.dir}/iso"
        os.makedirs(f"{iso}/isolinux")
        labimage.concatenate(self.run.fixed_layers, f"{iso}/initrd")
        shutil.copyfile(self.kernel(), f"{iso}/vmlinuz")
        shutil.copyfile("/usr/lib/ISOLINUX/isolinux.bin", f"{iso}/isolinux/isolinux.bin")
        shutil.copyfile("/usr/lib/syslinux/modules/bios/ldlinux.c32", f"{iso}/isolinux/ldlinux.c32")
        with open(f"{iso}/isolinux/isolinux.cfg", "w") as f:
            f.write(ISOLINUX.format(line=self.kernel_line()))
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", f"{d}/boot.iso",
                        "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat",
                        "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", iso],
                       check=True, stderr=subprocess.DEVNULL)
        shutil.rmtree(iso)

    def run_cd(self, layer):
        """Not a file system: the cpio as it is, on a disc of fixed size."""
        path = f"{self.run.dir}/run.img"
        if os.path.getsize(layer) > RUN_CD_SIZE:
            raise self.run.error(f"the overlays make more than {RUN_CD_SIZE >> 20} MiB")
        shutil.copyfile(layer, path)
        os.truncate(path, RUN_CD_SIZE)

    def launch(self, argv, env=None):
        """Starts Bochs; connects the console; returns the agent's socket."""
        d = self.run.dir
        # Debian's Bochs stops in its debugger before the first instruction.
        with open(f"{d}/debugger", "w") as f:
            f.write("c\n")
        debugger, terminal = pty.openpty()
        with open(f"{d}/bochs.err", "w") as err:
            self.run.spawn(["bochs", "-q", "-rc", f"{d}/debugger"] + argv, env=env,
                           stdin=terminal, stdout=terminal, stderr=err)
        os.close(terminal)
        background(drain, debugger)
        background(drain, self.screen())
        console = self.run.accept(self.console)
        self.logger = background(log, console, f"{d}/console.log")
        return self.run.accept(self.channel)

    def screen(self):
        """The emulated screen is a second terminal that Bochs makes and names.
        Somebody has to read it: Bochs stops when it is full, and what is echoed
        there comes back as keystrokes."""
        found = None
        while not found:
            time.sleep(0.02)
            if self.run.proc.poll() is not None:
                raise self.run.gone()
            with open(f"{self.run.dir}/bochs.err") as f:
                found = re.search(r'connected to screen "(/dev/pts/\d+)"', f.read())
        fd = os.open(found.group(1), os.O_RDWR | os.O_NOCTTY)
        tty.setraw(fd)
        return fd

    def boot(self, env=None):
        a, d = self.run.args, self.run.dir
        self.console, self.channel = listen(), listen()
        self.make_cd()
        with open(f"{d}/bochsrc", "w") as f:
            f.write(BOCHSRC.format(plugins=PLUGINS, mem=a.mem, cpu=self.cpu, smp=a.smp, ips=IPS, dir=d,
                                   console=self.console.getsockname()[1],
                                   channel=self.channel.getsockname()[1]))
        sock = self.launch(["-f", f"{d}/bochsrc"], env)
        self.wait_parked(sock)
        return sock

    def wait_parked(self, sock):
        """The host has booted and waits for its run's files: frame 'P'."""
        self.run.wait_readable([sock])
        if sock.recv(4, socket.MSG_WAITALL) != b"P\0\0\0":
            raise self.run.gone()

    def make_snapshot(self, path):
        """Boots and saves, into path only when it is whole."""
        shim = labimage.compiled("bochs-snapshot", ["-shared", "-fPIC"], self.run.cache)
        tmp = f"{path}.tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        os.makedirs(tmp)
        began = time.monotonic()
        self.run.note("first run with this configuration: booting the host under Bochs (minutes, once)")
        self.run.deadline = began + BOOT_LIMIT
        self.boot(dict(os.environ, LD_PRELOAD=shim, BOCHS_SNAPSHOT=tmp))
        self.run.proc.send_signal(signal.SIGUSR1)
        if self.run.proc.wait(300) != 0 or not os.path.exists(f"{tmp}/config"):
            raise self.run.error("Bochs could not save its state")
        self.ended()
        shutil.copyfile(f"{self.run.dir}/console.log", f"{tmp}/console.log")
        os.rename(tmp, path)
        self.run.note(f"booted and saved in {time.monotonic() - began:.0f} s")

    def restore(self, path):
        d = self.run.dir
        state = f"{d}/state"
        os.makedirs(state)
        for name in os.listdir(path):
            os.symlink(f"{path}/{name}", f"{state}/{name}")
        self.console, self.channel = listen(), listen()
        with open(f"{path}/config") as f:
            config = f.read()
        for what, value in ((r"plugin_ctrl: ).*", PLUGINS),
                            (r"log: ).*", f"{d}/bochs.log"),
                            (r"ata[01]-master:.*path=)\"[^\"]*\"", f'"{d}/run.img"'),
                            (r"com1:.*dev=)\S+", f"127.0.0.1:{self.console.getsockname()[1]}"),
                            (r"com2:.*dev=)\S+", f"127.0.0.1:{self.channel.getsockname()[1]}")):
            config = re.sub(rf"(?m)^({what}", lambda m, v=value: m.group(1) + v, config)
        os.unlink(f"{state}/config")
        with open(f"{state}/config", "w") as f:
            f.write(config)
        # What the kernel said while it booted belongs to this run's log too.
        shutil.copyfile(f"{path}/console.log", f"{d}/console.log")
        return self.launch(["-r", state])

    def snapshot(self):
        """Path of the saved host. The time limit is the command's: a boot, or
        waiting for another run's boot, does not count."""
        began, deadline = time.monotonic(), self.run.deadline
        path = f"{self.run.cache}/lab/ept-{self.run.args.kernel}-{self.snapshot_key()}"
        with open(f"{self.run.cache}/lab/ept.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(path):
                forget_old(os.path.dirname(path))
                self.make_snapshot(path)
            os.utime(path)
        self.run.deadline = deadline and deadline + time.monotonic() - began
        return path

    def start(self):
        a = self.run.args
        self.run_cd(self.run.run_layer)
        if a.cold:
            sock = self.boot()
        else:
            sock = self.restore(self.snapshot())
        sock.sendall(b"C\0\0\0")
        return sock

    def ended(self):
        """Called once Bochs is gone: the rest of the console comes in."""
        if self.logger:
            self.logger.join(10)


def forget_old(directory):
    """Under the lock: what an interrupted boot left, and states long unused."""
    for name in os.listdir(directory):
        if re.fullmatch(r"ept-.*\.tmp", name):
            shutil.rmtree(f"{directory}/{name}", ignore_errors=True)
    found = [f"{directory}/{n}" for n in os.listdir(directory) if re.fullmatch(r"ept-[\d.]+-[0-9a-f]{16}", n)]
    for path in sorted(found, key=os.path.getmtime)[:1 - SNAPSHOTS_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def background(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def drain(fd):
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass


def log(sock, path):
    with open(path, "ab", buffering=0) as f:
        while True:
            try:
                data = sock.recv(65536)
            except OSError:
                return
            if not data:
                return
            f.write(data)
