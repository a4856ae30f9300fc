# SPDX-License-Identifier: GPL-2.0
"""Finds what a kernel says when something is broken, in a console log."""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))

TROUBLE = re.compile(r"""
    \bBUG:\s | kernel\ BUG\ at | \bWARNING:\s | Call\ Trace: | \bOops\b | Kernel\ panic
  | [Oo]bjects\ remaining | general\ protection\ fault | unable\ to\ handle
  | possible\ (?:circular|recursive|irq) | inconsistent\ lock\ state | suspicious\ RCU | INFO:\ possible
  | detected\ (?:expedited\ )?stalls? | self-detected\ stall | rcu_.*\ stall | soft\ lockup | hard\ LOCKUP
  | INFO:\ task\ .*\ blocked\ for\ more | scheduling\ while\ atomic | sleeping\ function\ called
  | Missing\ ENDBR | refcount_t: | (?:list_add|list_del)\ corruption | \bUBSAN\b | \bKASAN\b
  | unchecked\ MSR\ access | Bad\ page\ state | bad\ pte | lab:\ cannot\ load
  """, re.VERBOSE)


# A panic that a test asked for. It is excused if another kernel, the crash kernel, comes up behind it.
ASKED = "sysrq: Trigger a crash"
BOOTS = re.compile(r"\] Linux version ")


def panics(text, since):
    """Has a test asked for a panic since then?"""
    return ASKED in text[since:]


def without_asked_panic(lines):
    out, held = [], None
    for line in lines:
        if held is not None and BOOTS.search(line):
            held = None
        if held is None and ASKED in line:
            held = []
        (out if held is None else held).append(line)
    return out + (held or [])


def load_allowed(arch):
    """Lines of console-allow that concern this emulator, as patterns."""
    allowed = []
    with open(f"{HERE}/console-allow") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                which, pattern = line.rstrip("\n").split(None, 1)
                if which in (arch, "any"):
                    allowed.append(re.compile(pattern))
    return allowed


def trouble(text, arch):
    """The lines that tell of a fault. An allowed WARNING takes the rest of its
    report (up to "end trace") with it; anything else in the log does not pass."""
    allowed = load_allowed(arch)
    found, block = [], None
    for line in without_asked_panic(text.replace("\r", "").split("\n")):
        if "[ cut here ]" in line:
            if block is not None:
                found += block          # the report before this one never ended
            block = []
            continue
        hit = TROUBLE.search(line)
        ok = hit and any(p.search(line) for p in allowed)
        if block is None:
            if hit and not ok:
                found.append(line)
            continue
        if ok:
            block = _Excused()
        elif hit:
            block.append(line)
        if "[ end trace" in line:
            found += block
            block = None
    if block is not None:
        found += block
    return found


class _Excused(list):
    """A report that console-allow names: what else it holds does not count."""

    def append(self, line):
        pass
