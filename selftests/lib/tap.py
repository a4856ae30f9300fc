# SPDX-License-Identifier: GPL-2.0
"""Reads the Test Anything Protocol, as strictly as a test deserves."""
import re

RESULT = re.compile(r"(ok|not ok)\b(?: +(\d+))?(?: *-)? *(.*)")
PLAN = re.compile(r"1\.\.(\d+)(?: *#.*)?")
SKIP = re.compile(r"(?<!\\)# *skip\b", re.I)
TODO = re.compile(r"(?<!\\)# *todo\b", re.I)


class Stream:
    """One suite's output: any number of TAP documents after one another.

    A document is a plan with its results, the plan first or last. What does not
    add up is a fault: a result without a plan, a plan that is not met, results out
    of order, a bail-out, or no result at all.
    """

    def __init__(self):
        self.results = 0        # in all documents
        self.faults = []
        self._plan = None       # of the open document, when it came first
        self._seen = 0          # results of the open document

    def line(self, text):
        """("ok" | "not ok" | "skip" | "todo", name) for a result, else None.

        skip: could not be tried. todo: not ok, as the test itself expects it to be
        for now. Both say why, and count neither way."""
        m = RESULT.fullmatch(text)
        if m:
            if self._plan is not None and self._seen == self._plan:
                self._plan, self._seen = None, 0
            self.results += 1
            self._seen += 1
            if m[2] and int(m[2]) != self._seen:
                self.faults.append(f"result {self._seen} calls itself {m[2]}")
                self._seen = int(m[2])
            verdict = m[1]
            if verdict == "ok" and SKIP.search(m[3]):
                verdict = "skip"
            elif verdict == "not ok" and TODO.search(m[3]):
                verdict = "todo"
            return verdict, m[3] or "(no name)"
        m = PLAN.fullmatch(text)
        if m and m[1] == "0" and SKIP.search(text):
            self.results += 1
            return "skip", text[text.index("#"):]
        if m:
            self._new_plan(int(m[1]))
        elif text.startswith("Bail out!"):
            self.faults.append(text)
        return None

    def _new_plan(self, n):
        if self._plan is None and self._seen:
            self._met(n)                    # it came last
            self._seen = 0
            return
        if self._plan is not None:
            self._met(self._plan)
        self._plan, self._seen = n, 0

    def _met(self, plan):
        if self._seen != plan:
            self.faults.append(f"{plan} tests were planned, {self._seen} reported")

    def end(self):
        """All that is wrong with the stream as a whole."""
        if self._plan is not None:
            self._met(self._plan)
        elif self._seen:
            self.faults.append("no plan: the test did not reach its end")
        if not self.results and not self.faults:
            self.faults.append("no TAP: no test was run")
        return self.faults
