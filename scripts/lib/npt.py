# SPDX-License-Identifier: GPL-2.0
"""The AMD host: QEMU TCG with SVM and nested paging."""
import random
import socket
import subprocess

import labimage


NVME_BYTES = 256 << 20


class Npt:
    def __init__(self, run):
        self.run = run

    def kernel(self):
        """Unpacked, which halves the boot, and at a random address all the same."""
        if self.run.args.vmlinuz:
            return self.run.kernel.vmlinuz
        if "nokaslr" in self.run.args.append.split():
            return self.run.kernel.boot_image(self.run.cache, "nokaslr", 0)
        return self.run.kernel.boot_image(self.run.cache, random.randrange(4), 128)

    def command(self, path):
        a = self.run.args
        # CPUs by turns: with a thread each, QEMU now and then stores the host's registers as
        # the guest's in the VMCB (Documentation/lab.md).
        accel = "tcg,thread=multi" if a.mttcg else "tcg,thread=single"
        line = ("console=ttyS0 panic=-1 printk.devkmsg=on "
                "no_timer_check lab.channel=port:lab lab.modules=kvm_amd " +
                ("intel_iommu=on " if a.nvme else "") + a.append)
        initrd = f"{self.run.dir}/initrd"
        labimage.concatenate(self.run.fixed_layers + [self.run.run_layer], initrd)
        argv = ["qemu-system-x86_64", "-accel", accel, "-machine", "q35",
                "-cpu", (a.cpu or "max") + ",+svm", "-smp", str(a.smp), "-m", str(a.mem),
                "-nodefaults", "-display", "none", "-no-reboot",
                "-kernel", self.kernel(), "-initrd", initrd, "-append", line,
                "-chardev", f"file,id=console,path={self.run.dir}/console.log",
                "-serial", "chardev:console",
                "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=lab,path={path}",
                "-device", "virtserialport,chardev=lab,name=lab"]
        if a.nvme:
            argv += self.nvme()
        if a.icount:
            argv += ["-icount", "shift=0,sleep=off"]
        return argv + a.qemu_arg

    def nvme(self):
        """Each controller is alone in its IOMMU group. amd-iommu does not get through a boot in QEMU 10."""
        disk = f"{self.run.dir}/nvme.img"
        with open(disk, "wb") as f:
            f.truncate(NVME_BYTES)
        argv = ["-device", "intel-iommu,intremap=on,aw-bits=48",
                "-drive", f"file={disk},if=none,id=ns,format=raw",
                "-device", "nvme-subsys,id=subsystem,nqn=lab"]
        for i in range(self.run.args.nvme):
            argv += ["-device", f"nvme,id=nvme{i},subsys=subsystem,serial=lab,max_ioqpairs=16,msix_qsize=17"]
        return argv + ["-device", "nvme-ns,drive=ns,nsid=1,shared=on,uuid=6d0a2b4e-5f1c-4c7a-9d58-3e2f7a1b8c90"]

    def start(self):
        path = f"{self.run.dir}/channel"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        with open(f"{self.run.dir}/qemu.err", "w") as err:
            self.run.spawn(self.command(path), stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        return self.run.accept(listener)

    def ended(self):
        pass
