# SPDX-License-Identifier: GPL-2.0
"""One run of the lab: image, emulator, the agent's channel, the verdict."""
import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty

import console
import labimage
from ept import Ept
from npt import Npt

EXIT_KERNEL, EXIT_TIMEOUT, EXIT_LAB = 97, 124, 125
# QEMU now and then loses an interrupt for good, unless another one comes (Documentation/lab.md):
# a host that has been silent for so long gets one.
NUDGE_SECONDS = {"npt": 5, "ept": None}
POWEROFF_GRACE = {"npt": 30, "ept": 120}        # seconds
STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FLAG_PTY, FLAG_MERGE = 1, 2
PR_SET_PDEATHSIG = 1


class LabError(Exception):
    pass


class Timeout(Exception):
    pass


class HostGone(Exception):
    pass


class Stopped(BaseException):
    """A signal asked us to end."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("REDOUBT_CACHE") or f"{base}/redoubt"


def note(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


class Channel:
    """The agent's frames over a socket (see labagent.c)."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""

    def send(self, kind, data=b""):
        self.sock.sendall(struct.pack("<BBH", ord(kind), 0, len(data)) + data)

    def frames(self):
        """Whole frames that have arrived; raises HostGone at the end."""
        data = self.sock.recv(65536)
        if not data:
            raise HostGone
        self.buf += data
        while len(self.buf) >= 4:
            kind, zero, n = struct.unpack_from("<BBH", self.buf)
            if zero:
                raise LabError("the agent's channel is garbled")
            if len(self.buf) < 4 + n:
                break
            frame, self.buf = self.buf[4:4 + n], self.buf[4 + n:]
            yield chr(kind), frame

    def start(self, argv, flags):
        args = b"".join(os.fsencode(a) + b"\0" for a in argv)
        for i in range(0, len(args), 4000):
            self.send("X", bytes([flags]) + args[i:i + 4000])
        self.send("G")


def same_file(a, b):
    sa, sb = os.fstat(a), os.fstat(b)
    return (sa.st_dev, sa.st_ino) == (sb.st_dev, sb.st_ino)


class Run:
    # for the emulators' modules
    error, gone, note = LabError, HostGone, staticmethod(note)

    def __init__(self, args):
        self.args = args
        self.began = time.monotonic()
        self.deadline = self.began + args.timeout if args.timeout else None
        self.cache = cache_dir()
        self.proc = None
        self.emulator = {"npt": Npt, "ept": Ept}[args.arch](self)
        self.dir = tempfile.mkdtemp(prefix="lab.")
        self.interactive = not args.cmd
        self.saved_tty = None

    def build_image(self):
        a, cache = self.args, self.cache
        # One saved host serves every run under Bochs, those without a guest too.
        with_guest = a.guest or a.arch == "ept"
        try:
            self.kernel = labimage.Kernel(cache, a.kernel)
            self.guest = labimage.Kernel(cache, a.guest_kernel) if with_guest else None
        except FileNotFoundError as e:
            raise LabError(f"{e.filename} is not there: run scripts/setup first") from e
        self.fixed_layers = [labimage.base_layer(cache, self.kernel)]
        if self.guest:
            self.fixed_layers.append(labimage.guest_layer(cache, self.guest))
        self.run_layer = f"{self.dir}/run.cpio"
        labimage.run_layer(self.run_layer, self.kernel, self.guest, a.overlay, a.crash)

    def spawn(self, argv, **kw):
        """The emulator dies with us, however we die."""
        def child():
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setpgid(0, 0)        # a terminal's ^C is ours to handle
        self.proc = subprocess.Popen(argv, preexec_fn=child, **kw)

    def accept(self, listener):
        self.wait_readable([listener])
        return listener.accept()[0]

    def wait_readable(self, fds, until=None):
        """select() that keeps the deadline and notices a dead emulator."""
        while True:
            now = time.monotonic()
            ends = [t for t in (until, self.deadline) if t is not None]
            if self.deadline is not None and now >= self.deadline:
                raise Timeout
            if until is not None and now >= until:
                return []
            span = min([t - now for t in ends] + [1.0])
            ready = select.select(fds, [], [], max(span, 0))[0]
            if ready:
                return ready
            if self.proc.poll() is not None:
                raise HostGone

    def start_command(self):
        a = self.args
        if self.interactive:
            self.channel.start(["/bin/sh", "-l"], FLAG_PTY)
            self.send_window_size()
        else:
            self.channel.start(a.cmd, FLAG_MERGE if same_file(1, 2) else 0)

    def send_window_size(self, *_):
        try:
            rows, cols = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))[:2]
            self.channel.send("W", struct.pack("<HH", rows, cols))
        except OSError:
            pass

    def raw_terminal(self):
        if os.isatty(0):
            self.saved_tty = termios.tcgetattr(0)
            tty.setraw(0)
            signal.signal(signal.SIGWINCH, self.send_window_size)

    def restore_terminal(self):
        if self.saved_tty:
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved_tty)
            self.saved_tty = None

    def relay(self):
        """Moves output (and a terminal's input) until the exit status comes."""
        fds = [self.channel.sock]
        silence, ready_at = None, 0
        while True:
            ready = self.wait_readable(fds, silence and time.monotonic() + silence)
            # Between a panic and the crash kernel's agent nobody is there to take it.
            if not ready and not console.panics(self.console_text(), ready_at):
                self.channel.send("N")
            if 0 in ready:
                data = os.read(0, 1024)
                if data:
                    self.channel.send("I", data)
                else:
                    fds.remove(0)
                    self.channel.send("I", b"\x04")
            if self.channel.sock not in ready:
                continue
            for kind, data in self.channel.frames():
                if kind == "R":
                    ready_at = len(self.console_text())
                    self.start_command()
                    silence = NUDGE_SECONDS[self.args.arch]
                    if self.interactive:
                        note(f"host up after {time.monotonic() - self.began:.1f} s; leave with 'exit'")
                        self.raw_terminal()
                        fds.append(0)
                elif kind == "O":
                    write_all(1, data)
                elif kind == "E":
                    write_all(2, data)
                elif kind == "Q":
                    self.restore_terminal()
                    self.channel.send("C")
                    return data[0]

    def power_off(self):
        """A host that cannot power off has something stuck: that is a failure."""
        end = time.monotonic() + POWEROFF_GRACE[self.args.arch]
        while time.monotonic() < end:
            if self.proc.poll() is not None:
                return True
            time.sleep(0.02)
        return False

    def kill(self):
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        self.emulator.ended()

    def console_text(self):
        try:
            with open(f"{self.dir}/console.log", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def execute(self):
        self.build_image()
        self.channel = Channel(self.emulator.start())
        status = self.relay()
        powered_off = self.power_off()
        self.kill()
        if not powered_off:
            note("the host did not power off")
            self.show_tail()
            return EXIT_KERNEL
        return status

    def show_tail(self, lines=15):
        note("the end of its console log:")
        for line in self.console_text().replace("\r", "").rstrip().split("\n")[-lines:]:
            print(f"    {line}", file=sys.stderr)

    def main(self):
        status = EXIT_LAB
        try:
            status = self.execute()
        except Timeout:
            self.restore_terminal()
            note(f"timeout after {self.args.timeout:g} s")
            self.show_tail()
            status = EXIT_TIMEOUT
        except HostGone:
            self.restore_terminal()
            note("the host went down before the command ended")
            self.show_tail()
            status = EXIT_KERNEL
        except LabError as e:
            note(str(e))
        finally:
            self.restore_terminal()
            self.kill()
        return self.verdict(status)

    def verdict(self, status):
        text = self.console_text()
        bad = console.trouble(text, self.args.arch)
        if bad:
            note(f"the host's kernel complained (the command's status was {status}):")
            for line in bad[:40]:
                print(f"    {line}", file=sys.stderr)
            if status != EXIT_TIMEOUT:
                status = EXIT_KERNEL
        if self.args.boot_log:
            with open(self.args.boot_log, "w") as f:
                f.write(text.replace("\r", ""))
        return status

    def clean_up(self):
        if self.args.keep:
            note(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def main(args):
    run = Run(args)

    def stop(signum, _):
        for s in STOPPERS:
            signal.signal(s, signal.SIG_IGN)
        raise Stopped(signum)   # unwinds, so that no lock of subprocess stays held
    for s in STOPPERS:
        signal.signal(s, stop)
    try:
        return run.main()
    except Stopped as e:
        return 128 + e.args[0]
    finally:
        run.clean_up()
