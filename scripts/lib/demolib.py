# SPDX-License-Identifier: GPL-2.0
"""What the demonstrations have in common: the screen, set-up, the emulated host."""
import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUIET = 15          # seconds after which a line says that we are not dead


class Failed(Exception):
    pass


class Screen:
    def __init__(self):
        self.began = time.monotonic()
        self.steps = 0
        self.at = ""
        self.bold, self.red, self.plain = \
            ("\033[1m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")

    def clock(self):
        return f"{time.monotonic() - self.began:4.0f} s"

    def step(self, text):
        self.steps += 1
        self.at = text
        print(f"\n{self.bold}{self.steps}. {text}{self.plain}   [{self.clock()}]", flush=True)

    def line(self, who, text):
        print(f"   {who + ':':7}{text}", flush=True)

    def alert(self, text):
        print(f"   {self.red}ALERT: {text}{self.plain}", flush=True)

    def waiting(self, what):
        print(f"   ...{what}, {self.clock()}", flush=True)


def run_quietly(screen, what, argv):
    """Set-up and builds: their own lines only when they fail."""
    proc = subprocess.Popen(argv, cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    lines, said = [], time.monotonic()
    for line in proc.stdout:
        lines.append(line.rstrip())
        if line.startswith("setup:") or time.monotonic() - said > QUIET:
            said = time.monotonic()
            screen.waiting(lines[-1][:90] if lines[-1] else what)
    if proc.wait():
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise Failed(f"{what} failed")


def need(condition, what):
    if not condition:
        raise Failed(what)


def set_up(screen, *steps):
    """Debian's packages, then what make makes: (what, make's arguments...)."""
    run_quietly(screen, "set-up", ["scripts/setup"])
    for what, *goals in steps:
        run_quietly(screen, what, ["make", "--no-print-directory", *goals])


def lab(log, args, script, overlays, handle, screen):
    """Boots the host and follows scripts/lib/SCRIPT there."""
    with open(f"{TOP}/scripts/lib/{script}") as f:
        script = f.read()
    argv = ["scripts/lab", "--arch", args.arch, "--kernel", args.kernel, "--guest-kernel", args.kernel,
            "--timeout", "7200" if args.arch == "ept" else "1200", "--boot-log", f"{log}.console"]
    for overlay in overlays:
        argv += ["--overlay", overlay]
    return follow(log, args, argv + ["--", "sh", "-c", script], handle, screen)


def follow(log, args, argv, handle, screen):
    """Runs it, and hands each line of its output on. Returns the exit status."""
    proc = subprocess.Popen(argv, cwd=TOP, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = queue.Queue()

    def pump():
        for raw in proc.stdout:
            lines.put(raw.decode(errors="replace").rstrip("\r\n"))
        lines.put(None)
    threading.Thread(target=pump, daemon=True).start()
    try:
        with open(f"{TOP}/{log}.log", "w") as out:
            while True:
                try:
                    line = lines.get(timeout=QUIET)
                except queue.Empty:
                    screen.waiting("still at: " + screen.at[:60])
                    continue
                if line is None:
                    return proc.wait()
                out.write(line + "\n")
                if args.verbose:
                    screen.line("", line)
                handle(line)
    finally:
        proc.terminate()
        proc.wait()


def main(name, doc, show):
    """show(args, screen, log): the demonstration; raises Failed. Returns the exit status."""
    p = argparse.ArgumentParser(prog=name, description=doc, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--arch", choices=["npt", "ept"], default="npt")
    p.add_argument("--kernel", choices=["6.1", "6.12"], default="6.1")
    p.add_argument("--verbose", action="store_true", help="also every line as it comes from the host")
    p.add_argument("--no-build", action="store_true", help="take what is set up and built")
    args = p.parse_args()
    for s in (signal.SIGTERM, signal.SIGHUP):       # so that the emulator goes with us
        signal.signal(s, lambda signum, _: sys.exit(128 + signum))
    screen = Screen()
    os.makedirs(f"{TOP}/build/logs", exist_ok=True)
    log = f"build/logs/{name}-{args.arch}"
    try:
        show(args, screen, log)
        return 0
    except Failed as e:
        print(f"\n{name}: FAILED: {e} ({log}.log, .console)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def table(rows):
    width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    print()
    for i, r in enumerate(rows):
        print("   " + "  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip())
        if i == 0:
            print("   " + "  ".join("-" * w for w in width))


def boots(screen, args):
    screen.step(f"An emulated {VENDOR[args.arch]} host boots" +
                (" (in Bochs: two to three minutes)" if args.arch == "ept" else " (in QEMU)"))


VENDOR = {"npt": "AMD", "ept": "Intel"}
