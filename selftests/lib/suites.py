# SPDX-License-Identifier: GPL-2.0
"""The table of suites: what is tested where.

A suite runs on each of its hosts, one a pair (arch, kernel), by one command that
prints TAP. Suites with the same lab options share a boot of that host. Those of
here() run on this machine.
"""
import dataclasses
import glob
import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOTH = ("6.1", "6.12")
ALL = tuple((arch, kernel) for arch in ("ept", "npt") for kernel in BOTH)
NPT = tuple(host for host in ALL if host[0] == "npt")
EPT = tuple(host for host in ALL if host[0] == "ept")

# Where suites find their files in the host
LIB = "/usr/local/lib/redoubt"


@dataclasses.dataclass(frozen=True)
class Suite:
    name: str
    command: str                # in the host; {arch} and {kernel} are filled in
    hosts: tuple                # where it is part of the short run
    long: tuple = ALL           # and of the long one
    boot: str = "main"          # suites of one name share a boot
    lab: tuple = ()             # options for scripts/lab besides the arch's own
    files: tuple = ()           # (glob here, place there), {kernel} filled in
    overlays: tuple = ()        # directories for lab --overlay
    needs: tuple = ()           # make's arguments that build it
    module: str = "loaded"      # or "free": see in-host
    seconds: int = 60          # on NPT on an idle machine


@dataclasses.dataclass(frozen=True)
class HereSuite:
    name: str
    argv: tuple                 # on this machine, in TOP
    seconds: int                # on an idle machine
    short: bool = False         # part of the short run, too
    arch: str = None            # the host that it boots itself, if it does
    kernel: str = None
    needs: tuple = ()


# The host's CPUs and memory
LAB = {
    ("npt", "6.1"): ("--smp", "2"),
    ("npt", "6.12"): ("--smp", "2"),
    ("ept", "6.1"): (),
    ("ept", "6.12"): (),
}
# A suite is given up after so many times its seconds: a busy machine must not fail it.
PATIENCE = {"npt": 4, "ept": 12, "here": 4}


# A vCPU in a busy emulator may stand still for longer than a real one ever does.
PATIENT = "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120"


def host_tests():
    """A program each, found by their sources."""
    return [os.path.basename(p)[5:-2]
            for p in sorted(glob.glob(f"{TOP}/selftests/host/test_*.c"))]


def host_suite(test, hosts=ALL, long=ALL, name=None, args="", before="", after="", **more):
    return Suite(name or f"host/{test}", f"{before}{LIB}/test_{test} {args}{after}", hosts, long,
                 files=((f"build/host-tests/test_{test}", LIB),),
                 needs=(("-C", "selftests/host"),), **more)


# What is not run there; Documentation/status.md says why
NOT_ON = {("leak", ("ept", "6.12"))}
# Longer than they are in the short run
HOST_LONG = {"gate": "5000", "races": "60", "stress": "120 40", "leak": "10000", "entry": "1", "domraces": "30"}
FUZZ_SECONDS = 300
LAB_TEST_SECONDS = {("npt", "6.1"): 240, ("npt", "6.12"): 240, ("ept", "6.1"): 600}
NX = "/sys/module/kvm/parameters/nx_huge_pages"


def host_suites():
    def where(test):
        return tuple(host for host in ALL if (test, host) not in NOT_ON)

    out = [host_suite(t, where(t), where(t)) for t in host_tests()]
    out += [host_suite(t, (), where(t), name=f"host-long/{t}", args=args, boot="long", seconds=300)
            for t, args in HOST_LONG.items()]
    # KVM's answer to the iTLB multihit erratum: no huge page is executable, each is
    # split when it is fetched from, and split pages get X back.
    out += [host_suite(t, (), where(t), name=f"host-nx/{t}",
                       before=f"echo force >{NX} && {{ ", after=f"; s=$?; echo off >{NX}; exit $s; }}")
            for t in host_tests()]
    return out


def guest_suite(name, hosts, run="", append="", driver="", groups="all attack/all ring3", guest="6.1",
                **more):
    """Groups of selftests/guest in a Debian guest, its driver loaded with parameters."""
    return Suite(f"guest/{name}",
                 f"redoubtctl policy --self-attach on && guest-run {run} --append '{PATIENT} {append}' -- "
                 f"guest-test {driver} -- {groups}", hosts,
                 # One CPU: where they take turns an IPI takes its time, and guests want many.
                 lab=("--smp", "1", "--guest-kernel", guest), boot=f"guest{guest}",
                 overlays=(f"build/{guest}/guest-tests/overlay",),
                 needs=(("-C", "selftests/guest"),), **more)


def driver_suite(name, hosts, options="", guest="6.1", test="driver-test", module="free", long=NPT, **more):
    """A guest from its host's side. The host loads redoubt only when it is time."""
    return Suite(f"guest/{name}", f"{LIB}/{test} {options}", hosts, long, module=module,
                 lab=("--smp", "1", "--guest-kernel", guest), boot=f"guest{guest}",
                 overlays=(f"build/{guest}/guest-tests/overlay",),
                 files=((f"selftests/guest/{test}", LIB), ("selftests/guest/guest-tap", LIB)),
                 needs=(("-C", "selftests/guest"),), **more)


def key_suite(name, hosts, guest="6.1", long=NPT, options="", lab=(), boot=None, test="key-test", files=(), needs=(), **more):
    """The key service in a domain of the guest's, and the guest's OpenSSL."""
    tools = "build/guest-tools"
    return Suite(f"guest/{name}", f"{LIB}/{test} {options}", hosts, long, module="free",
                 lab=("--smp", "1", "--guest-kernel", guest) + lab, boot=boot or f"guest{guest}",
                 overlays=(f"build/{guest}/guest-tests/overlay",),
                 files=((f"selftests/guest/{test}", LIB), ("selftests/guest/guest-tap", LIB),
                        (f"{tools}/redoubt-*", "/guest/overlay/usr/local/bin"),
                        ("/usr/bin/openssl", "/guest/overlay/usr/local/bin"),
                        (f"{tools}/redoubt.so", f"/guest/overlay{LIB}"),
                        (f"{tools}/key.dom", f"/guest/overlay{LIB}"),
                        (f"{tools}/user.dom", f"/guest/overlay{LIB}"),
                        (f"{tools}/key-bench", "/guest/overlay/usr/local/bin"),
                        (f"{tools}/user-test", "/guest/overlay/usr/local/bin"),
                        ("guest-driver/keyservice/test/key-test", f"/guest/overlay{LIB}")) + files,
                 needs=(("-C", "selftests/guest"), ("guest-tools",),
                        ("-C", "guest-driver/libredoubt", f"O={TOP}/{tools}", "guest-tests"),
                        ("-C", "guest-driver/keyservice", f"O={TOP}/{tools}", "bench")) + needs, **more)


def leak_suite(name, hosts, **more):
    """Where a domain's key must not be: what the VMM gives away of its guest."""
    return key_suite(name, hosts, test="leak-test", needs=(("-C", "selftests/guest", "leak"),), files=(
        ("build/leak/leak-seek", LIB), ("build/leak/empty.qcow2", LIB),
        ("build/leak/leak-sign", "/guest/overlay/usr/local/bin")), **more)


def secret_suite(name, hosts, guest="6.1", **more):
    """A secret in code, in a guest: its own programs besides those of the other guest suites."""
    return Suite(f"guest/{name}", f"{LIB}/secret-test", hosts,
                 lab=("--smp", "1", "--guest-kernel", guest), boot=f"guest{guest}",
                 overlays=(f"build/{guest}/guest-tests/overlay", "build/secret/overlay"),
                 files=(("selftests/guest/secret-test", LIB), ("selftests/guest/guest-tap", LIB),
                        ("build/secret/aeskeys", LIB), (f"build/secret/manifest-{guest}/rdt_*.json", LIB)),
                 needs=(("-C", "selftests/guest"), ("-C", "selftests/secret", f"KERNELS={guest}", "lab")), **more)


def migration_suite(name, hosts, test, args="", long=NPT, files=(), boot="nvme", lab=(), **more):
    """Guests with NVMe controllers of their own, under redoubt_vfio_pci."""
    return Suite(f"migration/{name}", f"{LIB}/{test} {args}", hosts, long, module="free", boot=boot,
                 lab=("--smp", "1", "--mem", "3072", "--nvme", "3") + lab, overlays=("build/6.1/guest-tests/overlay",),
                 files=(("selftests/migration/*", LIB),
                        ("selftests/guest/guest-tap", LIB), ("selftests/guest/load-lib", LIB)) + files,
                 needs=(("-C", "selftests/guest"),), **more)


# NUT's daemons, and what their libraries open only when they run: without, upsmon has no TLS, says nothing and ends.
NUT = (("/bin/upsc", "/usr/bin"),
       *((f"/lib/nut/{daemon}", "/lib/nut") for daemon in ("dummy-ups", "upsd", "upsmon")),
       *((f"/usr/lib/x86_64-linux-gnu/lib{name}", "/lib/x86_64-linux-gnu") for name in
         ("softokn3.so", "freebl3.so", "freeblpriv3.so", "sqlite3.so.0")))


def nut_suite():
    """NUT's own daemons in the emulated host."""
    return Suite("standby/nut", f"{LIB}/nut-test", (), NPT, module="free", files=(
        ("selftests/standby/nut-*", LIB), ("selftests/guest/guest-tap", LIB), *NUT), seconds=120)


def load_suite(name, hosts, long, options, **more):
    """insmod and rmmod: what must be refused, what must not be left behind."""
    return Suite(name, f"{LIB}/load-test {options}", hosts, long, module="free", lab=("--smp", "1"),
                 needs=(("-C", "selftests/load"),), files=(
                     ("selftests/load/load-test", LIB),
                     ("build/{kernel}/selftests/load/*.ko", LIB)), **more)


def copy_suite():
    """Copies of pages in the nested page table, where there is no device for it."""
    return Suite("host/copy", f"insmod {LIB}/redoubt_copier.ko && {{ {LIB}/test_copy $([ {{arch}} = ept ] && echo 50 || echo 1000); s=$?; rmmod redoubt_copier && exit $s; }}", ALL,
                 needs=(("-C", "selftests/copy"),), files=(
                     ("build/copy-tests/test_copy", LIB), ("build/{kernel}/selftests/copy/redoubt_copier.ko", LIB)))


def standby_suite(name, hosts, test, args="", long=ALL, **more):
    """redoubt_standby.ko on raw VMs: selftests/standby. It needs no redoubt.ko, and must do without."""
    return Suite(f"standby/{name}", f"{LIB}/test_{test} {args}", hosts, long, module="free",
                 files=((f"build/standby-tests/test_{test}", LIB),), needs=(("-C", "selftests/standby"),), **more)


# Of a guest with several CPUs: a disk with a queue for each and a thread of its own, a network card with two pairs
SMP = '--vm "--smp 2 --iothread --pairs 2"'


def killed_linux(name, hosts, long, args, seconds):
    return Suite(f"standby/{name}", f"{LIB}/killed-linux {args}", hosts, long, module="free", boot=f"standby-{name}", seconds=seconds,
                 lab=("--smp", "1", "--nvme", "1", "--mem", "2048"), needs=(("tools",),),
                 files=(*((f"selftests/standby/{f}", LIB) for f in ("killed-linux", "vm", "vm-event", "tap-up")),
                        ("selftests/guest/guest-tap", LIB), ("selftests/guest/load-lib", LIB),
                        ("selftests/standby/guest/guest.start", "/guest/overlay/etc")))


def qemu_suite(name, test, guest, hosts, long, seconds, args="", lab=("--smp", "1", "--nvme", "1", "--mem", "2048")):
    """Two redoubtds on one host, and between them a real QEMU with a guest of its own."""
    # Bochs' ADCX is wrong: Documentation/lab.md.
    env = "env OPENSSL_ia32cap=:~0x80000 " if long == EPT else ""
    return Suite(f"standby/{name}", f"{env}{LIB}/{test} {args}", hosts, long, module="free", boot="standby-netlink", seconds=seconds,
                 lab=lab, needs=(("tools",), ("-C", "selftests/standby")),
                 files=((f"selftests/standby/{test}", LIB), (f"build/standby-tests/{guest}", LIB)))


def panic_suites():
    # A vCPU in the guest on another CPU, one that waits for its turn on the only one, one with an I/O under way, a QEMU's.
    # Not yet run: "stopped" on 6.1; 6.1 with two CPUs on EPT.
    runs = [("npt", kernel, cpus, what, 60) for kernel in BOTH for cpus, what in (("2", "run"), ("1", "run"), ("2", "io"), ("2", "stopped"))
            if (kernel, what) != ("6.1", "stopped")]
    runs += [("ept", "6.1", "1", "run", 400), ("ept", "6.12", "1", "run", 400), ("ept", "6.12", "2", "run", 800)]
    return [HereSuite(f"standby/panic-{'' if arch == 'npt' else 'ept-'}{kernel}-{cpus}-{what}",
                      ("selftests/standby/panic", arch, kernel, cpus, what), seconds, arch=arch, kernel=kernel,
                      needs=(("modules", "tools"), ("-C", "selftests/standby")),
                      short=(arch, kernel, cpus, what) == ("npt", "6.12", "2", "run"))
            for arch, kernel, cpus, what, seconds in runs]


def suites():
    io_tools = tuple((f, "/guest/overlay/usr/local/bin") for f in
                     ("/usr/bin/fio", "/usr/bin/sqlite3", "/sbin/mke2fs", "/sbin/e2fsck"))
    out = [*host_suites(), copy_suite()]
    out += [
        guest_suite("all", NPT, run="--smp 2", seconds=120),
        # On Bochs the guest's boot alone takes minutes: the rest of its groups are in "all".
        guest_suite("some", EPT, run="--smp 2", long=(), groups="log deny policy calls nmi attack/all",
                    seconds=120),
        guest_suite("hypercall-door", (), driver="door=hypercall", seconds=120),
        guest_suite("no-integrity-mode", (), driver="integrity=0", seconds=120),
        # What the driver's or the kernel's parameters decide, and what no other suite loads.
        guest_suite("foreign-log", NPT, long=NPT, run="--smp 2", append="preempt=full",
                    driver="test_page=1", groups="foreign migrate life"),
        guest_suite("foreign-deny", (), long=NPT, driver="test_page=2", groups="foreign"),
        guest_suite("foreign-freeze", (), long=NPT, driver="test_page=3", groups="foreign"),
        driver_suite("driver", NPT, long=NPT + EPT[:1]),
        driver_suite("driver-6.12", (), guest="6.12"),
        driver_suite("text-deny", NPT[:1], "--deny"),
        driver_suite("life", (), "--life"),
        driver_suite("vmm", NPT[1:], test="vmm-test", module="loaded"),
        driver_suite("domain", NPT, test="domain-test", seconds=100),
        driver_suite("domain-bare", (), "integrity=0 protect_kernel=0", test="domain-test", seconds=100),
        driver_suite("domain-6.12", (), "--kill 100 --append preempt=full", guest="6.12", test="domain-test", seconds=200),
        key_suite("key", NPT, long=NPT + EPT[:1], seconds=80),
        key_suite("key-bench", (), options="--bench", lab=("--icount",), boot="icount"),
        key_suite("key-6.12", (), guest="6.12", seconds=80),
        leak_suite("leak", NPT[:1], seconds=120),
        secret_suite("secret", (), seconds=150),
        guest_suite("6.12", (), run="--smp 2", guest="6.12", seconds=120),
        migration_suite("plain", NPT, "plain-test", seconds=100),
        migration_suite("move", NPT, "move-test", "1", long=(), seconds=150),
        migration_suite("doorbell", NPT, "doorbell-test", seconds=100),
        migration_suite("hostile", (), "hostile-test", seconds=150),
        migration_suite("move-often", (), "move-test", "4", seconds=300),
        migration_suite("io", (), "io-test", "20", boot="nvme-io", seconds=1200, files=io_tools),
        # Dozens of commands are always under way.
        migration_suite("io-slow", (), "io-test", "2", boot="nvme-slow", seconds=200, files=io_tools,
                        lab=("--nvme-iops", "100")),
        migration_suite("during", (), "during-test", boot="nvme-during", seconds=400, files=io_tools[:1],
                        lab=("--mem", "4096")),
        migration_suite("fail", (), "fail-test", seconds=300),
        standby_suite("stream", NPT, "stream", long=NPT, seconds=60),
        standby_suite("stream-small", (), "stream", "6", long=EPT, seconds=60),
        standby_suite("killed", ALL, "killed", "2", long=(), seconds=40),
        standby_suite("killed-often", (), "killed", "100", long=NPT, seconds=300),
        standby_suite("killed-some", (), "killed", "8", long=EPT, seconds=100),
        standby_suite("refused", NPT, "refused", seconds=20),
        standby_suite("dirty", NPT, "dirty", "8 20", long=(), seconds=20),
        standby_suite("dirty-long", (), "dirty", "32 300", long=NPT, seconds=120),
        standby_suite("dirty-some", (), "dirty", "4 10", long=EPT, seconds=60),
        standby_suite("limit", NPT, "limit", seconds=30),
        standby_suite("hard", NPT, "hard", long=NPT, seconds=60),
        nut_suite(),
        # Two agents on one host, a VM whose memory goes by netlink
        qemu_suite("netlink", "netlink-test", "count.bin", NPT[:1], NPT, 60),
        qemu_suite("netlink-slow", "netlink-test", "count.bin", (), EPT, 300, args="6", lab=("--mem", "2048")),
        # A Linux guest's QEMU is killed, again and again
        killed_linux("killed-linux", NPT[:1], (), "2", 150),
        killed_linux("killed-linux-smp", NPT[1:], (), f"{SMP} 2", 180),
        killed_linux("killed-linux-often", (), NPT, "25 3", 1500),
        killed_linux("killed-linux-smp-often", (), NPT, f"{SMP} 16 3", 1500),
        # Likewise, in bounded mode: a guest that dirties memory as fast as it can
        qemu_suite("budget", "bounded-test", "hog.bin", NPT[1:], NPT, 150),
        qemu_suite("budget-netlink", "bounded-test", "hog.bin", (), NPT[:1], 150, args="netlink"),
        load_suite("load", NPT, (), "--guest 8", boot="load", seconds=100),
        load_suite("load-often", (), NPT, "--guest 40", boot="load", seconds=200),
        load_suite("load-only", (), EPT, "", boot="main", seconds=60),
    ]
    return out


def demo(arch, seconds, **more):
    return HereSuite(f"demo/{arch}", ("selftests/lib/as-tap", f"the demo on {arch}", "scripts/demo",
                                      "--no-build", "--arch", arch), seconds, arch=arch, kernel="6.1",
                     needs=(("-C", "selftests/guest"),), **more)


def standby_hosts(name, kernels, test, *options, args=(), seconds, **more):
    """Two emulated hosts: selftests/standby/two"""
    return HereSuite(f"standby/{name}-{'-'.join(kernels)}", ("selftests/standby/two", *options, *kernels, test, *args), seconds,
                     arch="npt", kernel=kernels[0], **more)


def here():
    labs = [HereSuite(f"lab/{arch}-{kernel}", ("selftests/lab/test_lab.sh", "--arch", arch, "--kernel", kernel),
                      seconds, arch=arch, kernel=kernel)
            for (arch, kernel), seconds in LAB_TEST_SECONDS.items()]
    two = [HereSuite(f"two-hosts/{kernel}", ("selftests/migration/two-hosts", kernel, "3"), 400, arch="npt", kernel=kernel,
                     needs=(("-C", "selftests/guest"),)) for kernel in ("6.1", "6.12")]
    database = {"needs": (("-C", "selftests/standby/postgres"),)}
    standby = [standby_hosts("thread", ("6.1", "6.1"), "thread-test", seconds=150, short=True)]
    standby += [standby_hosts("cuts", (a, b), "thread-test", args=("12",), seconds=900) for a in BOTH for b in BOTH]
    standby += [standby_hosts("cuts-bounded", (a, b), "thread-test", "--bounded", args=("6",), seconds=900) for a, b in (BOTH, BOTH[::-1])]
    standby += [standby_hosts("netlink-two", ("6.12", "6.1"), "thread-test", "--netlink", args=("4",), seconds=600)]
    standby += [HereSuite("standby/postgres", ("selftests/standby/often", "--again"), 4800, arch="npt", kernel="6.12", **database)]
    standby += [standby_hosts("killed-two", (a, b), "killed-test", args=("10",), seconds=900) for a, b in (BOTH, BOTH[::-1])]
    standby += [standby_hosts("killed-two-smp", (a, b), "killed-test", "--", args=("8", "4711", "--smp", "2", "--iothread"), seconds=900)
                for a in BOTH for b in BOTH]
    standby += [standby_hosts("power", ("6.12", "6.12"), "power-test", "--postgres", "--primary", "b", seconds=300, **database),
                standby_hosts("cluster", ("6.1", "6.1"), "cluster-test", "--cluster", "--primary", "b", seconds=500)]
    standby += [standby_hosts("panic-go", (a, b), "panic-go-test", "--panic", "--primary", "b", args=("3",), seconds=500)
                for a, b in (("6.12", "6.12"), BOTH)]
    standby += [standby_hosts("panic-nvme", (a, b), "panic-go-test", "--panic", "--nvme", "--primary", "b", args=("3",), seconds=600)
                for a, b in (("6.1", "6.1"), BOTH[::-1])]
    return labs + two + standby + panic_suites() + [
        HereSuite("standby/agent", ("selftests/standby/agent-test",), 40, short=True, needs=(("tools",),)),
        HereSuite("standby/panic-wire", ("selftests/standby/panic-wire-test",), 90, short=True, needs=(("tools",),)),
        HereSuite("standby/panic-wire-often", ("selftests/standby/panic-wire-test", "--cuts", "40", "--kills", "30"), 600, needs=(("tools",),)),
        HereSuite("standby/many", ("selftests/standby/many-test",), 60, short=True, needs=(("tools",),)),
        HereSuite("standby/agent-bounded", ("selftests/standby/agent-test", "--bounded", "--cuts", "9", "--kills", "4"), 60, short=True,
                  needs=(("tools",),)),
        HereSuite("standby/agent-bounded-often", ("selftests/standby/agent-test", "--bounded", "--cuts", "60", "--kills", "40"), 300,
                  needs=(("tools",),)),
        HereSuite("standby/agent-often", ("selftests/standby/agent-test", "--cuts", "60", "--kills", "40"), 200, needs=(("tools",),)),
        HereSuite("secret/manifest", ("make", "-s", "-C", "selftests/secret", "manifest"), 20, short=True),
        HereSuite("secret/aes", ("make", "-s", "-C", "selftests/secret", "aes"), 10, short=True),
        demo("npt", 40, short=True),
        demo("ept", 240),
        HereSuite("lint", ("selftests/lib/as-tap", "the checkers warn of nothing", "make", "-s", "lint"), 120),
        HereSuite("fuzz", ("selftests/lib/as-tap", "the fuzzer finds nothing", "make", "-s", "-C", "selftests/unit",
                           f"FUZZ_SECONDS={FUZZ_SECONDS}", "fuzz"),
                  FUZZ_SECONDS * len(glob.glob(f"{TOP}/selftests/fuzz/fuzz_*.cc")) + 60,
                  needs=(("-C", "selftests/unit", "fuzzers"),)),
    ]
