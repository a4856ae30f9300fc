#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""scripts/secret-manifest: what it accepts, and what it must refuse. TAP.

  test_manifest.py DIR [MODULE.ko...]      DIR is for what it makes; modules as they were built
"""
import hashlib
import json
import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TOOL = f"{TOP}/scripts/secret-manifest"

# The record that RDT_SECRET_MODULE() makes
RECORD = """
#define RET ret
#include "redoubt_secret.h"
	.section .redoubt.secret, "aw"
1:	.asciz "{name}"
	.fill 64 - (. - 1b), 1, 0
	.long {flags}, {slots}, 1, 0
	.quad 0, {name}_gate, {name}_exit, {name}_end, 0, 0
"""
GOOD = """
	rdt_secret_begin s
	rdt_secret_load s, value, 0, %rax
	rdt_secret_load s, value, 8, %rdx
	{gate}
	jmp 1f
	rdt_secret_text s
1:	movq %rdi, (%rsi)
	{text}
	rdt_secret_leave s
	rdt_secret_end s
	{more}
"""
C_SECRET = """
#include "redoubt_secret.h"
struct { char name[64]; __u32 flags, slots, results, erased; __u64 erasure; void *p[3]; __u64 rest[2]; }
	s_secret __attribute__((used, section(".redoubt.secret")));
RDT_SECRET_DECLARE(s);
RDT_SECRET_DEFINE(s)
{
	__u64 k = rdt_secret_u64(s, value, 0) ^ rdt_secret_u64(s, value, 8);

	while (b--)
		a = (a ^ k) * 0x9e3779b97f4a7c15;
	BODY
	rdt_secret_leave(s, a);
}
__typeof__(s_secret) s_secret = { "s", 0, 1, 1, 0, 0, { s_gate, s_exit, s_end } };
"""
# As Documentation/secrets.md says
C_FLAGS = ("-O2 -ffreestanding -mgeneral-regs-only -fno-stack-protector -fcf-protection=none "
           "-fomit-frame-pointer -fno-jump-tables -fno-asynchronous-unwind-tables -fno-pic -mcmodel=kernel").split()

count = failed = 0


def result(good, name, why=""):
    global count, failed
    count += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {count} - D1 {name}", flush=True)
    if not good:
        print("".join(f"# {line}\n" for line in why.splitlines()), end="")


def assemble(source, lang="assembler-with-cpp", flags=("-D__ASSEMBLY__",)):
    out = f"{work}/s.o"
    made = subprocess.run(["gcc", "-x", lang, *flags, f"-I{TOP}/guest-driver", "-c", "-o", out, "-"],
                          input=source, text=True, stderr=subprocess.PIPE, check=False)
    if made.returncode:
        print("".join(f"# {line}\n" for line in made.stderr.splitlines()), end="")
        return None
    return out


def asm(name="s", flags=0, slots=1, gate="", text="", more="", body=GOOD):
    return assemble(RECORD.format(name=name, flags=flags, slots=slots) +
                    body.format(gate=gate, text=text, more=more))


def tool(*args):
    return subprocess.run([TOOL, *(a or "/nothing" for a in args)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def refused(name, why, path):
    run = tool(path) if path else None
    good = run and run.returncode == 1 and why in run.stderr and run.stderr.count("\n") == 1
    result(good, f"refused: {name}", run.stdout + run.stderr if run else "it does not assemble")


def section(path, name):
    out = f"{work}/section"
    subprocess.run(["objcopy", "-O", "binary", "-j", name, path, out], check=True)
    with open(out, "rb") as f:
        return f.read()


def accepted():
    path = asm(slots=3, flags=2)
    run = tool(path, "--secret", "s")
    try:
        got = json.loads(run.stdout)
    except ValueError:
        got = {}
    data = section(path, ".text..redoubt.secret.s")
    result(run.returncode == 0 and len(data) == 3 * 4096, "a secret in assembly is accepted", run.stderr)
    result([(p["name"], int(p["offset"], 0), p["length"], p.get("from", 0)) for p in got.get("placeholders", [])] ==
           [("value", 2, 8, 0), ("value", 12, 8, 8)], "its placeholders are where they are", run.stdout)
    # Once more, by hand
    h = hashlib.sha256(b"redoubt-domain-1" + struct.pack("<IIIIQQIIQ", 2 | 4, 3, 0, 0, 0, 0x2000, 1, 0, 0) + bytes(3 * 8))
    for at, kind in ((0, 3), (0x1000, 1), (0x2000, 4)):
        h.update(struct.pack("<QQ", at, kind) + data[at:at + 0x1000])
    h.update(b"sealed")
    result(got.get("measurement") == h.hexdigest(), "its measurement is what the host computes", run.stdout)
    result(set(got) == {"redoubt_manifest", "name", "measurement", "placeholders"} and got["redoubt_manifest"] == 1,
           "the manifest has the fields of its format", run.stdout)
    other = json.loads(tool(asm(slots=4, flags=2), "--secret", "s").stdout)
    result(other["measurement"] != got["measurement"], "another number of slots is another measurement")
    run = tool(asm(slots=3, flags=2), "--output", f"{work}/out")
    with open(f"{work}/out/s.json") as f:
        result(json.load(f) == got, "--output writes the same")
    run = tool(assemble(C_SECRET.replace("BODY", ""), "c", C_FLAGS) or "")
    result(run.returncode == 0, "a secret in C is accepted", run.stderr)


def documented():
    """The examples of Documentation/secrets.md are secrets."""
    with open(f"{TOP}/Documentation/secrets.md") as f:
        lines = [line[4:] for line in f.read().splitlines() if line.startswith("    ")]
    asm_code = "\n".join(lines[lines.index(next(x for x in lines if x.startswith("\trdt_secret_begin"))):
                              lines.index(next(x for x in lines if x.startswith("\trdt_secret_call"))) + 1])
    run = tool(assemble(RECORD.format(name="tag", flags=0, slots=16) + asm_code + "\n"))
    result(run.returncode == 0 and "tag_key" in run.stdout, "the documented example in assembly is accepted", run.stderr)
    at = lines.index("RDT_SECRET_DEFINE(tag)")
    c_code = "\n".join(lines[at:lines.index("}", at) + 1])
    head, tail = C_SECRET.replace("(s)", "(tag)").replace("s_", "tag_").split("RDT_SECRET_DEFINE")
    run = tool(assemble(head + "typedef __u64 u64;\n" + c_code + tail[tail.index("__typeof__") - 1:].replace('"s"', '"tag"'),
                        "c", C_FLAGS))
    result(run.returncode == 0 and "tag_key" in run.stdout, "the documented example in C is accepted", run.stderr)


def not_accepted():
    for name, gate in (("a load", "movq (%rdi), %rax"), ("a store", "movl $1, 8(%rdi,%rcx,8)"),
                       ("an absolute address", "movl 0x1000, %eax"), ("a segment", "movq %gs:0x30, %rax"),
                       ("a string instruction", "rep stosb"), ("a vector store", "movdqu %xmm0, (%rdi)"),
                       ("RIP-relative data", "leaq 9f(%rip), %rcx\n9:	addq 9b(%rip), %rcx")):
        refused(f"{name} next to the placeholders", "must not touch memory", asm(gate=gate))
    result(tool(asm(gate="leaq 8(%rdi,%rcx,2), %rax\n	nopw 0(%rax,%rax)")).returncode == 0,
           "an address that is only computed, and a long NOP, are accepted")
    for name, text in (("a push", "pushq %rax"), ("a return", "ret"), ("a call", "call 1b"),
                       ("a system call", "syscall"), ("an interrupt return", "iretq"), ("a breakpoint", "int3")):
        refused(name, "uses the caller's stack, or leads out", asm(text=text))
    refused("an indirect jump", "an indirect jump", asm(text="jmp *%rax"))
    refused("a jump to the start of a page", "a jump to the start of a page", asm(text="jz s_gate+0x1000"))
    refused("a jump back to the gate", "a jump to the start of a page", asm(gate="jz 9f\n9:	jmp .Lg",
            body=GOOD.replace("rdt_secret_load s, value, 0", ".Lg: rdt_secret_load s, value, 0")))
    refused("an address of another section", "has relocations", asm(text="leaq elsewhere(%rip), %rax",
            more=".data\nelsewhere: .long 0"))
    refused("code of two pages at one offset", "both have code at", asm(
            body=GOOD.replace("rdt_secret_text s", ".balign 4096, 0x06\n	.skip 8, 0x06")))
    refused("an entry for ftrace", "the kernel would patch it: __mcount_loc",
            asm(more='.section __mcount_loc, "a"\n.quad s_gate'))
    refused("an alternative", "the kernel would patch it: .altinstructions",
            asm(more='.section .altinstructions, "a"\n.long s_gate - .'))
    refused("no placeholder", "has no placeholder",
            asm(body=GOOD.replace("rdt_secret_load s, value, 0, %rax", "").replace("rdt_secret_load s, value, 8, %rdx", "")))
    refused("a value with a hole", "not all bytes of value are used",
            asm(gate="rdt_secret_load s, value, 24, %rcx"))
    refused("a placeholder that is no operand", "not the immediate operand",
            asm(gate="addq %rax, %rdx\n	rdt_secret_fixup s, other, 0, 1"))
    refused("a placeholder that somebody has filled", "something else is there",
            asm(gate="movabsq $0x1122334455667788, %rcx\n	rdt_secret_fixup s, other, 0, 8"))
    refused("a name that is none", "not a name for a value", asm(gate="rdt_secret_load s, 1x, 0, %rcx"))
    refused("placeholders of a secret that is not described", "is not described",
            asm(more="rdt_secret_begin t\n	rdt_secret_load t, value, 0, %rax\n	rdt_secret_leave t\n	rdt_secret_end t"))
    refused("a description without a secret", "has no section", assemble(RECORD.format(name="t", flags=0, slots=1)))
    refused("a module without secrets", "no secret in it", assemble("	nop\n"))
    refused("C that spills", "must not touch memory",
            assemble(C_SECRET.replace("BODY", "*(volatile __u64 *)c = k;"), "c", C_FLAGS))
    run = tool(asm(), "--secret", "x")
    result(run.returncode == 1 and "no secret x" in run.stderr, "refused: a secret that is not there", run.stderr)
    run = tool("/dev/null")
    result(run.returncode == 1 and "Traceback" not in run.stderr, "refused: a file that is no module", run.stderr)


work = sys.argv[1]
os.makedirs(work, exist_ok=True)
accepted()
documented()
not_accepted()
for module in sys.argv[2:]:
    checked = tool(module)
    result(checked.returncode == 0, f"{os.path.basename(module)} is accepted", checked.stderr)
print(f"1..{count}")
sys.exit(failed != 0)
