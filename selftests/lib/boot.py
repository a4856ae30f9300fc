# SPDX-License-Identifier: GPL-2.0
"""One boot of an emulated host and the suites that share it; or a command here."""
import ctypes
import glob
import os
import shutil
import signal
import subprocess
import sys
import time

from suites import LAB, LIB, PATIENCE, TOP
from tap import Stream

sys.path.insert(0, f"{TOP}/scripts/lib")
import console      # noqa: E402

BOOT_SECONDS = {"npt": 240, "ept": 1800}
EXIT_KERNEL = 97
TAIL = 25               # lines shown of a suite that ended without saying why
TELLING = 20            # and of what a test says of its failure


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)      # PR_SET_PDEATHSIG


def spawn(argv):
    return subprocess.Popen(argv, cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, preexec_fn=die_with_parent)


class Suspect:
    """A suite under way: its TAP, and what to show if it fails."""

    def __init__(self, report, where):
        self.report, self.where = report, where
        self.stream = Stream()
        self.tail = []
        self.telling = 0                # lines to come of a failure, by the "#" lines behind it
        self.failed = self.todo = False

    def line(self, text):
        result = self.stream.line(text)
        if result:
            self.report.result(self.where, *result)
            self.telling = TELLING if result[0] == "not ok" else 0
            self.failed |= result[0] == "not ok"
            self.todo |= result[0] == "todo"
            for said in self.tail[-TELLING:] if self.telling else []:
                if said.startswith("#"):
                    self.report.note(self.where, said.lstrip("# "))
            self.tail = []
        elif self.telling and text.startswith("#"):
            self.report.note(self.where, text.lstrip("# "))
            self.telling -= 1
        else:
            self.tail = (self.tail + [text])[-TAIL:]

    def excused(self, status):
        """Is this exit status what the results make one expect?"""
        return not status or self.failed or status == 1 and self.todo

    def end(self, faults=()):
        """Whatever is wrong with the suite besides its results is one failure more."""
        faults = list(faults) + self.stream.end()
        if faults:
            self.report.result(self.where, "not ok", "; ".join(faults))
            for text in self.tail:
                self.report.note(self.where, text)


class Here:
    """A command on this machine that prints TAP."""

    arch, kernel = "here", ""

    def __init__(self, name, argv, seconds=600, needs=()):
        self.name, self.argv, self.seconds, self.needs_built = name, argv, seconds, needs

    def needs(self):
        return list(self.needs_built)

    def names(self):
        return [self.name]

    def weight(self):
        return self.seconds

    def run(self, report):
        suspect = Suspect(report, self.name)
        limit = self.seconds * PATIENCE[self.arch]
        proc = spawn(["timeout", "-k", "30", str(limit), *self.argv])
        with open(f"{TOP}/build/logs/{self.name.replace('/', '-')}.log", "w", errors="replace") as log:
            for raw in proc.stdout:
                text = raw.decode(errors="replace").rstrip("\r\n")
                log.write(text + "\n")
                log.flush()
                suspect.line(text)
        status = proc.wait()
        if status in (124, 137):
            suspect.end([f"no end after {limit} s"])
        else:
            suspect.end([] if suspect.excused(status) else [f"exit status {status}"])


class Boot:
    def __init__(self, host, name, suites=()):
        self.arch, self.kernel = host
        self.name = name
        self.suites = list(suites)
        self.again = 0

    def add(self, suite):
        self.suites.append(suite)

    def needs(self):
        return [n for s in self.suites for n in s.needs]

    def names(self):
        return [s.name for s in self.suites]

    def patience(self):
        return PATIENCE[self.arch]

    def weight(self):
        return (sum(s.seconds for s in self.suites) + 20) * self.patience()

    def label(self):
        return f"{self.arch}-{self.kernel}-{self.name}" + (f"-{self.again}" if self.again else "")

    def fill(self, text):
        return text.replace("{kernel}", self.kernel).replace("{arch}", self.arch)

    def overlay(self):
        """The files of the suites and the list for in-host."""
        root = f"{TOP}/build/selftests/{self.label()}"
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(f"{root}/etc")
        os.makedirs(root + LIB)
        shutil.copy2(f"{TOP}/selftests/lib/in-host", root + LIB)
        with open(f"{root}/etc/selftests", "w") as f:
            for s in self.suites:
                f.write(f"{s.name} {s.seconds * self.patience()} {s.module} {self.fill(s.command)}\n")
                for pattern, place in s.files:
                    found = glob.glob(os.path.join(TOP, self.fill(pattern)))
                    if not found:
                        raise FileNotFoundError(f"{s.name}: nothing at {self.fill(pattern)}")
                    os.makedirs(root + place, exist_ok=True)
                    for path in found:
                        shutil.copy2(path, root + place)
        return root

    def command(self):
        limit = BOOT_SECONDS[self.arch] + sum(s.seconds for s in self.suites) * self.patience()
        argv = ["scripts/lab", "--arch", self.arch, "--kernel", self.kernel,
                "--timeout", str(limit), "--boot-log", f"build/logs/{self.label()}.console",
                "--overlay", self.overlay(), *LAB[self.arch, self.kernel]]
        for options in dict.fromkeys(s.lab for s in self.suites):
            argv += [self.fill(o) for o in options]
        for directory in dict.fromkeys(d for s in self.suites for d in s.overlays):
            argv += ["--overlay", self.fill(directory)]
        return argv + ["--", f"{LIB}/in-host"]

    def where(self, name):
        return f"{self.arch} {self.kernel} {name}"

    def run(self, report):
        """Runs the suites. Should the host go down under one of them, that one has
        failed, and the boot that is to run the others is returned."""
        host = f"{self.arch} {self.kernel}"
        try:
            argv = self.command()
        except FileNotFoundError as e:
            report.result(self.where(self.name), "not ok", str(e))
            return None
        report.note(host, f"boots for {', '.join(s.name for s in self.suites)}")
        began = time.monotonic()
        suspect, current, limit, left = None, None, 0, {s.name: s for s in self.suites}
        outside = []                    # what the lab says, not the host
        proc = spawn(argv)
        with open(f"{TOP}/build/logs/{self.label()}.log", "w", errors="replace") as log:
            for raw in proc.stdout:
                text = raw.decode(errors="replace").rstrip("\r\n")
                log.write(f"{time.monotonic() - began:7.1f} {text}\n")
                log.flush()
                word = text.split(" ") if text.startswith("@ ") else []
                if word[1:2] == ["begin"]:
                    current, since = word[2], time.monotonic()
                    suspect = Suspect(report, self.where(current))
                    limit = left[current].seconds * self.patience() if current in left else 0
                    left.pop(current, None)
                elif word[1:2] == ["end"]:
                    suspect.end(self.faults(int(word[3]), time.monotonic() - since, limit, suspect))
                    suspect = current = None
                elif suspect:
                    suspect.line(text)
                    if text.startswith("lab:"):
                        outside.append(text)
                else:
                    outside.append(text)
        status = proc.wait()
        report.note(host, f"{self.label()}: {time.monotonic() - began:.0f} s")
        if suspect:
            suspect.end([f"the host went down in it (lab's status: {status})"])
        self.judge_console(report, status, outside)
        if not left:
            return None
        if len(left) == len(self.suites):
            for name in left:
                report.result(self.where(name), "not ok", f"was never started (lab's status: {status})")
            return None
        rest = Boot((self.arch, self.kernel), self.name, left.values())
        rest.again = self.again + 1
        return rest

    def faults(self, status, took, limit, suspect):
        if limit and status == 137 and took >= limit:
            return [f"no end after {limit} s"]
        return [] if suspect.excused(status) else [f"exit status {status}"]

    def judge_console(self, report, status, outside):
        """What the host's kernel complained of counts against the suite it happened in."""
        name, part, blamed = "boot", [], False
        try:
            with open(f"{TOP}/build/logs/{self.label()}.console", errors="replace") as f:
                lines = f.read().split("\n")
        except FileNotFoundError:
            lines = []
        for text in lines + ["selftests: end"]:
            mark = text.find("selftests: ")
            if mark < 0:
                part.append(text)
                continue
            bad = console.trouble("\n".join(part), self.arch)
            if bad:
                blamed = True
                report.result(self.where(name), "not ok", "the host's kernel complained")
                for line in bad[:12]:
                    report.note(self.where(name), line)
            word = text[mark:].split(" ")
            name = word[2] if word[1] == "begin" else "between suites"
            part = []
        if status and not (blamed and status == EXIT_KERNEL):
            report.result(self.where(self.name), "not ok", f"lab's exit status is {status}")
            for line in outside[-TAIL:]:
                report.note(self.where(self.name), line)
