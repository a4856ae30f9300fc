# SPDX-License-Identifier: GPL-2.0
"""The AMD host: QEMU TCG with SVM and nested paging."""
import shutil
import socket


class Npt:
    popen = {}

    def __init__(self, run):
        self.run = run
        self.path = f"{run.dir}/channel"

    def listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(1)
        return listener

    def initrd(self):
        path = f"{self.run.dir}/initrd"
        with open(path, "wb") as out:
            for layer in self.run.layers:
                with open(layer, "rb") as f:
                    shutil.copyfileobj(f, out, 1 << 20)
        return path

    def command(self):
        a = self.run.args
        # Several emulated CPUs run at once only without icount.
        accel = "tcg,thread=multi" if a.smp > 1 and not a.icount else "tcg,thread=single"
        line = ("console=ttyS0 panic=-1 printk.devkmsg=on "
                "lab.channel=port:lab lab.modules=kvm_amd " + a.append)
        argv = ["qemu-system-x86_64", "-accel", accel, "-machine", "q35",
                "-cpu", (a.cpu or "max") + ",+svm", "-smp", str(a.smp), "-m", str(a.mem),
                "-nodefaults", "-display", "none", "-no-reboot",
                "-kernel", self.run.kernel.vmlinuz, "-initrd", self.initrd(), "-append", line,
                "-chardev", f"file,id=console,path={self.run.dir}/console.log",
                "-serial", "chardev:console",
                "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=lab,path={self.path}",
                "-device", "virtserialport,chardev=lab,name=lab"]
        if a.icount:
            argv += ["-icount", "shift=0,sleep=off"]
        return argv + a.qemu_arg
