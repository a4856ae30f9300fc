# SPDX-License-Identifier: GPL-2.0
"""Chooses suites, builds them, runs the boots side by side, sums up."""
import os
import subprocess
import sys
import threading
import time

from boot import Boot, Here
from suites import TOP, here, suites


class Report:
    """The results of all boots as one TAP stream. Called from several threads.

    quiet: of the results only those that failed, so that nobody has to look for them
    among thousands; a line now and then says how far it has come."""

    TELL_EVERY = 1000       # results, when quiet

    def __init__(self, quiet=False):
        self.quiet = quiet
        self.lock = threading.Lock()
        self.count = {"ok": 0, "not ok": 0, "skip": 0, "todo": 0}
        self.failures = []
        self.began = time.monotonic()

    def result(self, where, verdict, name):
        with self.lock:
            self.count[verdict] += 1
            n = sum(self.count.values())
            word = "not ok" if verdict in ("not ok", "todo") else "ok"
            if not self.quiet or verdict == "not ok":
                print(f"{word} {n} - [{where}] {name}", flush=True)
            elif n % self.TELL_EVERY == 0:
                print(f"# {n} results after {self.minutes():.0f} minutes, "
                      f"{self.count['not ok']} failed", flush=True)
            if verdict == "not ok":
                self.failures.append(f"[{where}] {name}")

    def note(self, where, text):
        with self.lock:
            print(f"# [{where}] {text}" if where else f"# {text}", flush=True)

    def minutes(self):
        return (time.monotonic() - self.began) / 60

    def finish(self):
        c = self.count
        if not self.quiet:
            print(f"1..{sum(c.values())}")
        print(f"# {self.minutes():.1f} minutes; logs are in build/logs")
        if c["skip"] or c["todo"]:
            print(f"# counted neither way: {c['skip']} skipped, {c['todo']} known to fail for now")
        for f in self.failures:
            print(f"# FAILED: {f}")
        print(f"{c['ok']} passed, {c['not ok']} failed", flush=True)
        return 0 if c["ok"] and not c["not ok"] else 1


def wanted(name, asked):
    return not asked or any(name == a or a.endswith("/") and name.startswith(a) for a in asked)


def for_host(h, args):
    """Does it belong to the host that was asked for? What is for none must be asked for by name."""
    if h.arch or h.kernel:
        return args.arch in (None, h.arch) and args.kernel in (None, h.kernel)
    return bool(args.suites) or args.arch is None and args.kernel is None


def plan(args):
    """Boots with their suites, those that take longest first."""
    boots = {}
    for s in suites():
        for host in s.long if args.long else s.hosts:
            if wanted(s.name, args.suites) and args.arch in (None, host[0]) and \
                    args.kernel in (None, host[1]):
                key = host + (s.boot,)
                boots.setdefault(key, Boot(host, s.boot)).add(s)
    todo = list(boots.values())
    for h in here():
        if (args.long or h.short) and wanted(h.name, args.suites) and for_host(h, args):
            todo.append(Here(h.name, h.argv, h.seconds, h.needs))
    return sorted(todo, key=lambda b: -b.weight())


def build(report, boots):
    """False, and a failed result, for what does not build."""
    fine = True
    for target in dict.fromkeys([("modules", "tools")] + [n for b in boots for n in b.needs()]):
        began = time.monotonic()
        made = subprocess.run(["make", "--no-print-directory", *target], cwd=TOP, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        if made.returncode:
            for line in made.stdout.rstrip().split("\n")[-25:]:
                report.note("build", line)
            report.result("build", "not ok", "make " + " ".join(target))
            fine = False
        else:
            report.note("build", f"make {' '.join(target)}: {time.monotonic() - began:.0f} s")
    return fine


class Queue:
    """Boots to do, taken by a few threads."""

    def __init__(self, boots):
        self.boots = list(boots)
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            return self.boots.pop(0) if self.boots else None

    def put(self, boot):
        with self.lock:
            self.boots.append(boot)


def work(queue, report):
    while (boot := queue.take()) is not None:
        rest = boot.run(report)
        if rest:
            queue.put(rest)


def main(args):
    boots = plan(args)
    names = [s.name for s in suites() + here()]
    unknown = [a for a in args.suites if not any(wanted(name, [a]) for name in names)]
    if unknown:
        print(f"run: no such suite: {' '.join(unknown)} (see --list)", file=sys.stderr)
        return 2
    if args.list:
        for b in boots:
            for name in b.names():
                print(f"{b.arch:4} {b.kernel:5} {name}")
        return 0

    report = Report(args.quiet)
    os.makedirs(f"{TOP}/build/logs", exist_ok=True)
    if args.build and not build(report, boots):
        return report.finish()
    if args.unit:
        # Not last: it takes both processors. Behind the long ones that take one each.
        at = sum(1 for b in boots if b.arch == "ept")
        boots.insert(min(at, 1), Here("unit", ["make", "-s", "--no-print-directory", "unit"], 900))
    queue = Queue(boots)
    threads = [threading.Thread(target=work, args=(queue, report), daemon=True)
               for _ in range(min(args.jobs, len(boots)))]
    for t in threads:
        t.start()
    try:
        for t in threads:
            while t.is_alive():         # so that ^C is seen; the labs die with us
                t.join(0.5)
    except KeyboardInterrupt:
        report.result("run", "not ok", "interrupted")
    return report.finish()
