# SPDX-License-Identifier: GPL-2.0
"""The AMD host: QEMU TCG with SVM and nested paging."""
import random
import socket
import subprocess
import uuid

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
            # A disk takes its time: without sleep the guest's clock would run on at once to the next timeout.
            argv += ["-icount", "shift=0,sleep=" + ("on" if a.nvme else "off")]
        return argv + a.qemu_arg

    def nvme(self):
        """Each controller is alone in its IOMMU group. amd-iommu does not get through a boot in QEMU 10.
        The last one of three or more is a subsystem of its own."""
        argv = ["-device", "intel-iommu,intremap=on,aw-bits=48"]
        n = self.run.args.nvme
        shared = n if n < 3 else n - 1
        for name, controllers in (("lab", range(shared)), ("other", range(shared, n))):
            if not controllers:
                continue
            disk, sharing = f"{self.run.dir}/{name}.img", ""
            if self.run.args.nvme_disk and name == "lab":
                # What one QEMU has written another one reads at once, and does not mind it.
                disk, sharing = self.run.args.nvme_disk, ",cache=directsync,file.locking=off"
            else:
                with open(disk, "wb") as f:
                    f.truncate(NVME_BYTES)
            if self.run.args.nvme_iops:
                sharing += f",throttling.iops-total={self.run.args.nvme_iops}"
            argv += ["-drive", f"file={disk},if=none,id=drive-{name},format=raw{sharing}",
                     "-device", f"nvme-subsys,id={name},nqn={name}"]
            for i in controllers:
                argv += ["-device", f"nvme,id=nvme{i},subsys={name},serial={name},max_ioqpairs=16,msix_qsize=17"]
            argv += ["-device", f"nvme-ns,drive=drive-{name},nsid=1,shared=on,uuid={uuid.uuid5(uuid.NAMESPACE_DNS, name)}"]
        return argv

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
