# SPDX-License-Identifier: GPL-2.0
"""Two agents and their QEMUs on this machine, and a wire between them that can be cut.

No KVM, no module: the guest is count.S under TCG, its memory a file, its disk a raw
file both sides have. Everything is under one directory and ends with the process.
"""
import atexit
import collections
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", f"{TOP}/build")
REDOUBTD = f"{BUILD}/tools/redoubtd"
REDOUBTCTL = f"{BUILD}/tools/redoubtctl"
UUID = "6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5b"
MEGABYTES = 32
PATIENCE = 20       # seconds for what takes far less than one on an idle machine


class Failed(Exception):
    pass


def wait_for(what, condition, seconds=PATIENCE, every=0.02):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for: {what}")
        time.sleep(every)


class Qmp:
    """Our own monitor of a QEMU, beside the agent's: what it says, and when."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        wait_for(f"QEMU's monitor {path}", lambda: self._connect(path))
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.replies = collections.deque()
        self.events = []            # (seconds, name)
        self.closed = False
        self.socket.sendall(b'{"execute":"qmp_capabilities"}')
        threading.Thread(target=self._read, daemon=True).start()
        self._reply()

    def _connect(self, path):
        try:
            self.socket.connect(path)
            return True
        except OSError:
            return False

    def _read(self):
        try:
            for line in self.file:
                message = json.loads(line)
                if "event" in message:
                    stamp = message["timestamp"]
                    self.events.append((stamp["seconds"] + stamp["microseconds"] / 1e6, message["event"]))
                else:
                    self.replies.append(message)
        except (OSError, ValueError):
            pass
        self.closed = True

    def _reply(self):
        wait_for("QEMU's answer", lambda: self.replies or self.closed)
        return self.replies.popleft() if self.replies else {}

    def command(self, name, **arguments):
        try:
            self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        except OSError:
            return {}
        return self._reply()

    def give(self, name, fd):
        """getfd: QEMU has it by that name."""
        command = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode()
        socket.send_fds(self.socket, [command], [fd])
        return self._reply()

    def running(self):
        return self.command("query-status").get("return", {}).get("running", False)


class Vm:
    """A QEMU. waiting: for an image."""
    count = 0

    def __init__(self, node, waiting, extra=(), megabytes=MEGABYTES):
        Vm.count += 1
        self.out = f"{node.dir}/out-{Vm.count}"
        observer = f"{node.dir}/observer-{Vm.count}.qmp"
        for path in (node.qmp,):
            if os.path.exists(path):
                os.unlink(path)
        self.began = time.time()
        self.waiting = waiting
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-vga", "none", "-display", "none", "-uuid", getattr(node, "uuid", UUID),
             "-accel", "tcg", "-machine", "q35,memory-backend=ram,hpet=off", "-m", str(megabytes),
             "-object", f"memory-backend-file,id=ram,size={megabytes}M,mem-path={node.ram},share=on",
             # QEMU's own locks are not to help: that never two run is ours to see to.
             "-drive", f"if=none,id=disk,file={getattr(node, 'disk', node.pair.disk)},format=raw,cache=none,aio=threads,file.locking=off",
             "-device", "virtio-blk-pci,drive=disk,bootindex=0,romfile=",
             "-chardev", f"file,id=out,path={self.out}", "-device", "isa-debugcon,iobase=0xe9,chardev=out",
             "-chardev", f"socket,id=agent,path={node.qmp},server=on,wait=off", "-mon", "chardev=agent,mode=control",
             "-chardev", f"socket,id=test,path={observer},server=on,wait=off", "-mon", "chardev=test,mode=control",
             *(("-incoming", "defer") if waiting else ()), *extra],
            stdin=subprocess.DEVNULL, stderr=open(f"{node.dir}/qemu-{Vm.count}.err", "wb"))
        node.pair.children.append(self.process)
        self.qmp = Qmp(observer)

    def alive(self):
        return self.process.poll() is None

    def running(self):
        return self.alive() and self.qmp.running()

    def output(self):
        with open(self.out, "rb") as file:
            return file.read()

    def steps(self):
        return self.output().count(b"\n")

    def end(self):
        if self.alive():
            self.process.kill()
        self.process.wait()

    def intervals(self):
        """When it ran, as (from, to) in seconds."""
        out, since = [], None if self.waiting else self.began
        for when, event in list(self.qmp.events):
            if event == "RESUME" and since is None:
                since = when
            elif event in ("STOP", "SHUTDOWN") and since is not None:
                out.append((since, when))
                since = None
        if since is not None:
            out.append((since, time.time() if self.alive() else since))
        return out


class Node:
    def __init__(self, pair, name, peer, role, port, peer_port, **more):
        self.pair, self.name = pair, name
        self.dir = f"{pair.dir}/{name}"
        os.mkdir(self.dir)
        self.ram, self.qmp = f"{pair.shm}/{name}.ram", f"{self.dir}/agent.qmp"
        self.key, self.certificate = f"{self.dir}/key", f"{self.dir}/crt"
        self.boot_id = f"{self.dir}/boot_id"
        self.boot()
        self.config = {
            "me": name, "state": f"{self.dir}/state", "socket": f"{self.dir}/socket", "listen": f"127.0.0.1:{port}",
            "key": self.key, "certificate": self.certificate, "link-patience-seconds": 1,
            "peer": {"name": peer, "address": "127.0.0.1", "port": peer_port, "certificate": f"{pair.dir}/{peer}/crt"},
            "vms": [{"name": "db", "uuid": UUID, "qmp": self.qmp, "ram": self.ram, "role": role}], **more}
        subprocess.run([REDOUBTD, "make-key", self.key, self.certificate, name], check=True, stdout=subprocess.DEVNULL)
        self.vm = self.agent = None

    def boot(self):
        """A host that comes up anew."""
        with open(self.boot_id, "w", encoding="ascii") as file:
            h = "".join(random.choice("0123456789abcdef") for _ in range(32))
            file.write(f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}\n")

    def start_agent(self):
        path = f"{self.dir}/standby.json"
        with open(path, "w", encoding="ascii") as file:
            json.dump(self.config, file)
        self.agent = subprocess.Popen([*self.pair.wrapper, REDOUBTD, "--config", path, "--boot-id", self.boot_id],
                                      stdin=subprocess.DEVNULL, stderr=open(f"{self.dir}/log", "ab"))
        self.pair.children.append(self.agent)
        wait_for(f"the agent at {self.name}", lambda: self.agent.poll() is not None or self.ask("list"))
        if self.agent.poll() is not None:
            raise Failed(f"the agent at {self.name} ended with {self.agent.returncode}: {self.log()[-400:]}")

    def end_agent(self, how=signal.SIGKILL):
        self.agent.send_signal(how)
        self.agent.wait()

    def start_vm(self, waiting, **more):
        self.vm = Vm(self, waiting, **more)
        self.pair.vms.append(self.vm)
        return self.vm

    def ask(self, command, **more):
        """None: nobody answers."""
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.settimeout(PATIENCE)
                s.connect(self.config["socket"])
                s.sendall(json.dumps({"command": command, **more}).encode() + b"\n")
                line = s.makefile("r").readline()
                return json.loads(line) if line else None
            except OSError:
                return None

    def status(self):
        return self.ask("status", vm="db") or {}

    def state(self):
        return self.status().get("state")

    def wait_state(self, *states, seconds=PATIENCE):
        return wait_for(f"{self.name} is {' or '.join(states)}", lambda: self.state() in states and self.state(), seconds)

    def ctl(self, *args):
        """redoubtctl standby ...: (status, output, errors)"""
        done = subprocess.run([REDOUBTCTL, "standby", "--socket", self.config["socket"], *args], capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def log(self):
        with open(f"{self.dir}/log", encoding="utf-8", errors="replace") as file:
            return file.read()


class Wire:
    """What the two agents are connected by: TCP through here, counted."""

    def __init__(self, to):
        self.to = to
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.sockets = []
        self.bytes = 0
        self.rate = None        # bytes a second, of each connection and way
        self.limit = None       # cut when so many bytes have passed,
        self.way = None         # this way only: True: from b to a; None: both
        self.after = 0          # and counted only when so many have come the other way
        self.hold = False       # there it stops, and goes on with heal()
        self.held = threading.Event()
        self.healed = threading.Event()
        self.cut_now = False
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, limit, way=None, after=0, hold=False):
        self.held.clear()
        self.healed.clear()
        with self.lock:
            self.bytes, self.limit, self.way, self.after, self.hold = 0, limit, way, after, hold

    def heal(self):
        with self.lock:
            self.limit, self.cut_now, self.hold = None, False, False
        self.healed.set()

    def cut(self):
        with self.lock:
            self.cut_now = True
            for s in self.sockets:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.sockets.clear()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            if self.cut_now:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                near.close()
                continue
            with self.lock:
                self.sockets += [near, far]
            for a, b, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._copy, args=(a, b, back), daemon=True).start()

    def _copy(self, a, b, back):
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    break
                with self.lock:
                    if self.cut_now:
                        break
                    counts = self.way in (None, back) and self.after <= 0
                    over = counts and self.limit is not None and self.bytes + len(data) >= self.limit
                    rest = b""
                    hold = over and self.hold
                    if over:
                        left = max(0, self.limit - self.bytes)
                        data, rest = data[:left], data[left:]
                    if counts:
                        self.bytes += len(data)
                    elif self.way != back:
                        self.after -= len(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
                b.sendall(data)
                if hold:
                    self.held.set()
                    self.healed.wait()
                    b.sendall(rest)
                elif over:
                    self.cut()
                    break
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Pair:
    def __init__(self, wrapper=(), **config):
        self.wrapper = wrapper
        self.children, self.vms = [], []
        # The disk wants O_DIRECT, the memory wants to be memory.
        os.makedirs(BUILD, exist_ok=True)
        self.dir = tempfile.mkdtemp(prefix="standby-", dir=BUILD)
        self.shm = tempfile.mkdtemp(prefix="redoubt-standby-", dir="/dev/shm")
        atexit.register(self.end)
        self.disk = f"{self.dir}/disk"
        self._make_disk()
        port = free_port()
        self.wire = Wire(port)
        os.environ["REDOUBT_TEST"] = "1"
        self.a = Node(self, "a", "b", "primary", free_port(), self.wire.port, **config)
        self.b = Node(self, "b", "a", "standby", port, self.wire.port, **config)

    def _make_disk(self):
        source = f"{TOP}/selftests/standby/count.S"
        subprocess.run(["as", "--32", "-o", f"{self.dir}/count.o", source], check=True)
        subprocess.run(["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00", "-e", "start", "-o", self.disk,
                        f"{self.dir}/count.o"], check=True)
        os.truncate(self.disk, 4 << 20)

    def start(self):
        self.a.start_vm(waiting=False)
        self.b.start_vm(waiting=True)
        for node in (self.b, self.a):
            node.start_agent()
        self.wait_ready(self.a, self.b)

    def wait_ready(self, runs, waits):
        """The link is up, @runs runs the VM, @waits has a QEMU that waits for it."""
        wait_for(f"{runs.name} runs the VM and has a link",
                 lambda: (s := runs.status()) and s["state"] == "active" and s["vmm"] == "running" and s["link"])
        wait_for(f"{runs.name} hears that {waits.name} is ready", lambda: runs.status().get("standby") == "ready")
        wait_for(f"{waits.name} waits and has a link",
                 lambda: (s := waits.status()) and s["vmm"] == "waiting" and s["link"])

    def outputs(self):
        """What the guest has said, on whatever host, in the order of those."""
        return b"".join(vm.output() for vm in self.vms)

    def check_guest(self):
        """The number of steps, if they are one unbroken row."""
        text = self.outputs()
        lines = text.split(b"\n")
        if b"!" in text:
            raise Failed(f"the guest has lost something: {text[text.index(b'!'):][:4]}")
        # Only whole lines; the last one may be on its way.
        for n, line in enumerate(lines[:-1], 1):
            if line != b"%08X" % n:
                raise Failed(f"step {n} calls itself {line!r}: not one row")
        return len(lines) - 1

    def check_never_two(self):
        times = sorted(i for vm in self.vms for i in vm.intervals())
        for (_, end), (begin, _) in zip(times, times[1:]):
            if begin < end:
                raise Failed(f"two ran at once for {end - begin:.6f} s")

    def running(self):
        return [n for n in (self.a, self.b) if n.vm and n.vm.running()]

    def ram_differs(self):
        """Pages in which the two RAM files differ."""
        out = []
        with open(self.a.ram, "rb") as x, open(self.b.ram, "rb") as y:
            for page in range(MEGABYTES << 8):
                if x.read(4096) != y.read(4096):
                    out.append(page)
        return out

    def end(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.shm, ignore_errors=True)
