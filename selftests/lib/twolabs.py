# SPDX-License-Identifier: GPL-2.0
"""Two emulated hosts side by side: what the tests with two hosts have in common."""
import ctypes
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIB = "usr/local/lib/redoubt"
LOGS = f"{TOP}/build/logs"


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)      # PR_SET_PDEATHSIG: scripts/lab takes its emulator along


def nic(name, number, me, socket_args):
    """A host's network card, which a socket of the emulator's stands for. number: the card's, for its MAC address"""
    return ["-netdev", f"stream,id={name},addr.type=unix,{socket_args}",
            "-device", f"virtio-net-pci,netdev={name},romfile=,mac=52:54:00:00:{number:02x}:0{1 + (me == 'b')}"]


class Pair:
    """Hosts a and b. a's output is ours, b's goes to build/logs/LABEL-b.log; the consoles are beside it."""

    def __init__(self, label, timeout):
        self.label, self.timeout = label, timeout
        self.directory = tempfile.mkdtemp(prefix="two.")
        self.overlay = f"{self.directory}/overlay"
        self.argv, self.more, self.hosts = {}, {}, {}
        self.killed = set()
        os.makedirs(f"{self.overlay}/{LIB}")
        os.makedirs(LOGS, exist_ok=True)

    def __enter__(self):
        for s in (signal.SIGTERM, signal.SIGHUP):       # so that the hosts go with us
            signal.signal(s, lambda signum, _: sys.exit(128 + signum))
        return self

    def __exit__(self, *_):
        for me in self.hosts:
            self.kill(me)
        shutil.rmtree(self.directory, ignore_errors=True)

    def lay(self, *patterns, place=LIB):
        """Files of the repository or of this machine, into both hosts"""
        os.makedirs(f"{self.overlay}/{place}", exist_ok=True)
        for pattern in patterns:
            found = [f for f in glob.glob(os.path.join(TOP, pattern)) if os.path.isfile(f)]
            if not found:
                raise FileNotFoundError(pattern)
            for f in found:
                shutil.copy(f, f"{self.overlay}/{place}")

    def disk(self, name, size):
        """A sparse file for a disk. Returns its path."""
        path = f"{self.directory}/{name}"
        with open(path, "wb") as f:
            f.truncate(size)
        return path

    def direct(self, name, number, me):
        """A cable without anything between: b finds a again when either boots once more."""
        return nic(name, number, me, f"addr.path={self.directory}/{name}," +
                   ("server=on" if me == "a" else "server=off,reconnect-ms=1000"))

    def relayed(self, name, number, me):
        """A cable for wire.Wire."""
        return nic(name, number, me, f"addr.path={self.end(name, me)},server=on")

    def end(self, name, me):
        return f"{self.directory}/{name}-{me}"

    def describe(self, me, kernel, options, qemu, command, overlays=()):
        """What host `me` is: boot() can be said more than once."""
        argv = [f"{TOP}/scripts/lab", "--arch", "npt", "--kernel", kernel, "--smp", "1", *options]
        for overlay in (*overlays, self.overlay):
            argv += ["--overlay", overlay]
        argv += ["--timeout", str(self.timeout), "--boot-log", f"{LOGS}/{self.label}-{me}.console"]
        self.argv[me] = argv + [f"--qemu-arg={a}" for a in qemu] + ["--", *command]

    def boot(self, me):
        console = f"{LOGS}/{self.label}-{me}.console"
        if me in self.killed and os.path.exists(console):
            os.replace(console, f"{console}.before")
        log = None if me == "a" else open(f"{LOGS}/{self.label}-{me}.log", "a" if me in self.killed else "w")
        self.killed.discard(me)
        self.hosts[me] = subprocess.Popen(self.argv[me], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          preexec_fn=die_with_parent)
        if log:
            log.close()

    def kill(self, me):
        """The power goes off: when this returns, the emulator has ended."""
        self.killed.add(me)
        self.hosts[me].terminate()
        return self.hosts[me].wait()

    def wait(self):
        """Until a ends, then b. The exit status; b's is no matter if it was killed."""
        status = self.hosts["a"].wait()
        if status:
            self.kill("b")
        other = self.hosts["b"].wait()
        if not status and other and "b" not in self.killed:
            print(f"not ok - host b ended with {other}: build/logs/{self.label}-b.log", flush=True)
            return other
        return status


class Control(threading.Thread):
    """A serial port of a host's, by which a test there asks for what only the outside can do: a line, and a line back.

    answer(words) is called in a thread for each host; it returns the answer or raises ValueError."""

    def __init__(self, path, answer):
        super().__init__(daemon=True)
        self.answer = answer
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)

    @staticmethod
    def qemu(path):
        return ["-chardev", f"socket,id=control,path={path}", "-device", "virtserialport,chardev=control,name=control"]

    def run(self):
        while True:
            sock = self.listener.accept()[0]
            with sock, sock.makefile("rw") as f:
                try:
                    for line in f:
                        try:
                            said = f"ok {self.answer(line.split())}"
                        except (ValueError, IndexError, KeyError) as e:
                            said = f"error {e!r}"
                        f.write(said.strip() + "\n")
                        f.flush()
                except OSError:
                    pass            # the host went down
