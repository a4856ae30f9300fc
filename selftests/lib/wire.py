# SPDX-License-Identifier: GPL-2.0
"""A cable between two emulated hosts that can be cut, and made slow."""
import select
import socket
import struct
import threading
import time

CHUNK = 1 << 16
AGAIN = 0.2             # seconds between tries to reach a host that is not there
# What a deaf end still gets: TCP's acknowledgements, and redoubtd's PING and READY, 80 bytes each in a TLS record of 22 and a frame of 70;
# PREPARED, the shortest message that matters, has 96. On a busy machine there are several in a record, and several records in a
# frame. Without them the link would be given up before an image is whole.
EMPTY, RECORD, PING = 70, 22, 80
SHORT = EMPTY + RECORD + PING + 8
PINGS = {EMPTY + records * RECORD + pings * PING for records in range(1, 7) for pings in range(records, 13)}
assert not PINGS & {size + 16 for size in PINGS}        # none of them may have PREPARED in it


def heard_by_the_deaf(size):
    return size <= SHORT or size in PINGS


class End:
    """One host's socket of a "stream" netdev, which that host's emulator listens at. Frames: their length in 32 bits, big endian."""

    def __init__(self, path):
        self.path = path
        self.sock = None
        self.buf = b""
        self.tried = 0

    def connect(self):
        if self.sock or time.monotonic() - self.tried < AGAIN:
            return
        self.tried = time.monotonic()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(self.path)
            self.sock = sock
        except OSError:
            sock.close()

    def lost(self):
        self.sock.close()
        self.sock, self.buf = None, b""

    def frames(self):
        """What has come, up to the end of the last whole frame, and where each ends there."""
        try:
            data = self.sock.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self.lost()
            return b"", []
        self.buf += data
        at, ends = 0, []
        while len(self.buf) - at >= 4:
            n = 4 + struct.unpack_from(">I", self.buf, at)[0]
            if len(self.buf) - at < n:
                break
            at += n
            ends.append(at)
        whole, self.buf = self.buf[:at], self.buf[at:]
        return whole, ends

    def send(self, data):
        try:
            if self.sock and data:
                self.sock.sendall(data)
        except OSError:
            self.lost()


class Wire(threading.Thread):
    """Carries frames between two ends. What is cut is lost without a word, as on a cable."""

    def __init__(self, paths):
        super().__init__(daemon=True)
        self.ends = [End(p) for p in paths]
        self.lock = threading.Lock()    # of the five below; taken by whoever asks and by the thread, no other lock inside
        self.left = None                # bytes until the cut; None: no cut
        self.rate = None                # bytes a second, both ways together; None: as fast as it goes
        self.deaf = None                # the end (0 or 1) that gets only what is short
        self.passed = 0                 # bytes carried so far
        self.dropped = 0

    def cut(self, after=0):
        """after: bytes that still pass, both ways together. It is cut between two frames."""
        with self.lock:
            self.left = after

    def deafen(self, end):
        """One way only, and what is short still passes: all that this end sends arrives, no word comes back."""
        with self.lock:
            self.deaf = end

    def mend(self):
        with self.lock:
            self.left = self.deaf = None

    def limit(self, rate):
        with self.lock:
            self.rate = rate or None

    def count(self):
        with self.lock:
            return self.passed, self.dropped

    def take(self, to, data, ends):
        """What of it passes, and how long that takes."""
        with self.lock:
            n = len(data)
            if self.deaf == to:
                frames = [data[a:b] for a, b in zip([0, *ends], ends)]
                data = b"".join(f for f in frames if heard_by_the_deaf(len(f)))
            elif self.left is not None:
                data = data[:max((e for e in ends if e <= self.left), default=0)]
                self.left = self.left - n if len(data) == n else 0
            self.passed += len(data)
            self.dropped += n - len(data)
            return data, len(data) / self.rate if self.rate else 0

    def run(self):
        while True:
            for end in self.ends:
                end.connect()
            there = {end.sock: i for i, end in enumerate(self.ends) if end.sock}
            if not there:
                time.sleep(AGAIN)
                continue
            for sock in select.select([*there], [], [], AGAIN)[0]:
                i = there[sock]
                if self.ends[i].sock is not sock:       # it went while it was sent what the other end said
                    continue
                data, seconds = self.take(1 - i, *self.ends[i].frames())
                self.ends[1 - i].send(data)
                if seconds:
                    time.sleep(seconds)
