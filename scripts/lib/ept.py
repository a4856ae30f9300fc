# SPDX-License-Identifier: GPL-2.0
"""The Intel host: Bochs with VMX and EPT, booted from an emulated CD.

The console (COM1) and the agent's channel (COM2) are TCP sockets on the
loopback: Bochs' file mode keeps the last lines in a buffer, sockets do not.
"""
import os
import pty
import shutil
import socket
import subprocess
import threading

# Emulated instructions in an emulated second, near what Bochs does in a real
# one. CPUID claims 3.5 GHz; tsc_early_khz= tells the kernel what the TSC really
# does, or its idea of a second would be 70 emulated ones.
IPS = 50_000_000

BOCHSRC = """\
display_library: term
memory: guest={mem}, host={mem}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={dir}/boot.iso, status=inserted
cpu: model={cpu}, count={smp}, ips={ips}, reset_on_triple_fault=0
clock: sync=none, time0=utc
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{console}
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{channel}
plugin_ctrl: voodoo=0, ne2k=0, pcipnic=0, sb16=0, es1370=0, gameport=0, speaker=0, parallel=0
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
        self.console = listen()
        self.channel = listen()

    def kernel_line(self):
        # quiet: each character on the console costs 4000 instructions. init
        # repeats what the kernel complained of, and raises the level then.
        return (f"console=ttyS0 quiet panic=-1 printk.devkmsg=on tsc_early_khz={IPS // 1000} "
                "lab.channel=tty:/dev/ttyS1 lab.modules=kvm_intel "
                # Bochs logs unaligned addresses to the page-modification log.
                "kvm_intel.pml=0 " + self.run.args.append)

    def make_cd(self):
        d, iso = self.run.dir, f"{self.run.dir}/iso"
        os.makedirs(f"{iso}/isolinux")
        os.link(self.run.initrd(), f"{iso}/initrd")
        shutil.copyfile(self.run.kernel.vmlinuz, f"{iso}/vmlinuz")
        shutil.copyfile("/usr/lib/ISOLINUX/isolinux.bin", f"{iso}/isolinux/isolinux.bin")
        shutil.copyfile("/usr/lib/syslinux/modules/bios/ldlinux.c32", f"{iso}/isolinux/ldlinux.c32")
        with open(f"{iso}/isolinux/isolinux.cfg", "w") as f:
            f.write(ISOLINUX.format(line=self.kernel_line()))
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", f"{d}/boot.iso",
                        "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat",
                        "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", iso],
                       check=True, stderr=subprocess.DEVNULL)
        shutil.rmtree(iso)

    def start(self):
        a, d = self.run.args, self.run.dir
        self.make_cd()
        with open(f"{d}/bochsrc", "w") as f:
            f.write(BOCHSRC.format(mem=a.mem, cpu=a.cpu or "corei7_skylake_x", smp=a.smp, ips=IPS, dir=d,
                                   console=self.console.getsockname()[1],
                                   channel=self.channel.getsockname()[1]))
        # Debian's Bochs stops in its debugger before the first instruction.
        with open(f"{d}/debugger", "w") as f:
            f.write("c\n")
        screen, terminal = pty.openpty()
        with open(f"{d}/bochs.err", "w") as err:
            self.run.spawn(["bochs", "-q", "-f", f"{d}/bochsrc", "-rc", f"{d}/debugger"],
                           stdin=terminal, stdout=terminal, stderr=err)
        os.close(terminal)
        threading.Thread(target=drain, args=(screen,), daemon=True).start()
        console = self.run.accept(self.console)
        self.logger = threading.Thread(target=log, args=(console, f"{d}/console.log"), daemon=True)
        self.logger.start()
        return self.run.accept(self.channel)

    def ended(self):
        """Called once Bochs is gone: the rest of the console comes in."""
        if hasattr(self, "logger"):
            self.logger.join(10)


def drain(fd):
    """The emulated screen, which nobody looks at."""
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass


def log(sock, path):
    with open(path, "wb", buffering=0) as f:
        while True:
            try:
                data = sock.recv(65536)
            except OSError:
                return
            if not data:
                return
            f.write(data)
