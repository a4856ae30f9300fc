/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Redoubt: secrets in code. What a module needs to hold one, for C and for assembly;
 * Documentation/secrets.md tells how, and what the code must not do.
 *
 * A secret is whole pages, in a section of its own that one source file makes:
 *
 *   .text..redoubt.secret.NAME
 *     NAME_gate     first page, the authorization: a jump to its first byte enters, any other
 *                   does not. All placeholders are here, as immediate operands, and no
 *                   instruction that touches memory
 *     NAME_text     further pages, if any: code that works on memory
 *     NAME_exit     last page, the verification: a jump to its first byte, by a thread that came
 *                   in by the gate, leaves; it is never executed
 *     NAME_end
 *   .redoubt.fixups  where the placeholders are: struct rdt_secret_fixup
 *
 * Once the module has given these pages to the host, nobody in the guest can read or
 * write them, nor jump to anything but the gate. So no tool may have to patch them: no
 * call, no return, no alternative, no static key, no entry for ftrace; and their
 * bytes must not depend on where the module is loaded, or they would have no measurement.
 * scripts/secret-manifest refuses what breaks these rules.
 *
 * The address space inside is the caller's, who can put any page of the secret in the place
 * of any other. So code of different pages is at different offsets in its page: then a
 * jump that was led astray finds #UD.
 */
#ifndef _REDOUBT_SECRET_H
#define _REDOUBT_SECRET_H

#define RDT_SECRET_NAME_MAX	64	/* with its 0 */

/*
 * What lies around the code: an instruction of one byte that 64-bit mode does not have. Not INT3: a
 * handler that just returns would make a slide of it, down to the next code.
 */
#define RDT_SECRET_FILL		0x06

/* What an operand holds until the host puts the secret there. */
#define RDT_SECRET_PLACEHOLDER	0x5ec2e7ab5e47f00d

#ifdef __KERNEL__
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/asm.h>
#define RDT_SECRET_EXTABLE(from, to)	_ASM_EXTABLE(from, to)
#define RDT_SECRET_NOENDBR		ANNOTATE_NOENDBR
#define RDT_SECRET_UNCHECKED(func)	STACK_FRAME_NON_STANDARD(func)
#else
#define RDT_SECRET_EXTABLE(from, to)
#define RDT_SECRET_NOENDBR
#define RDT_SECRET_UNCHECKED(func)	_Static_assert(1, "")
#endif

#ifdef __ASSEMBLY__

/* objtool: reached by addresses in data; ends with a jump that nobody comes back from */
.macro rdt_secret_unchecked func:req
#ifdef __KERNEL__
	ANNOTATE_NOENDBR
	STACK_FRAME_NON_STANDARD \func
#endif
.endm

/* Starts secret \name; what follows is on its gate page. */
.macro rdt_secret_begin name:req
	.section .text..redoubt.secret.\name, "ax", @progbits
	.balign	4096
	.globl	\name\()_gate, \name\()_exit, \name\()_end
	.type	\name\()_gate, @function
\name\()_gate:
	rdt_secret_unchecked \name\()_gate
.endm

/* What follows is on the next page, at the offset where this page's code ends. */
.macro rdt_secret_text name:req
	.fill	4096, 1, RDT_SECRET_FILL
	.size	\name\()_gate, . - \name\()_gate
	.type	\name\()_text, @function
\name\()_text:
	rdt_secret_unchecked \name\()_text
.endm

/* The way out. To be used in the code of secret \name. */
.macro rdt_secret_leave name:req
	jmp	.Lrdt_exit_\name
.endm

/* Ends secret \name: fills its last page, and makes the exit page. */
.macro rdt_secret_end name:req
	.balign	4096, RDT_SECRET_FILL
	.ifdef	\name\()_text
	.size	\name\()_text, . - \name\()_text
	.else
	.size	\name\()_gate, . - \name\()_gate
	.endif
	.type	\name\()_exit, @function
\name\()_exit:
.Lrdt_exit_\name:
	rdt_secret_unchecked \name\()_exit
	ud2
	.fill	\name\()_exit + 4096 - ., 1, RDT_SECRET_FILL
	.size	\name\()_exit, . - \name\()_exit
\name\()_end:
	.previous
.endm

/*
 * Says that the last \length bytes of the instruction before are a placeholder: bytes
 * \from and on of the value that the host's operator knows as \value.
 */
.macro rdt_secret_fixup name:req, value:req, from:req, length:req
.Lrdt_fixup_\@:
	.pushsection .redoubt.fixups, "a", @progbits
	.quad	.Lrdt_fixup_\@ - \length - \name\()_gate
	.long	\length, \from
.Lrdt_name_\@:
	.asciz	"\name"
	.fill	64 - (. - .Lrdt_name_\@), 1, 0
.Lrdt_value_\@:
	.asciz	"\value"
	.fill	64 - (. - .Lrdt_value_\@), 1, 0
	.popsection
.endm

/* Bytes \from..\from+7 of \value into a general register, from the code itself. */
.macro rdt_secret_load name:req, value:req, from:req, reg:req
	movabsq	$RDT_SECRET_PLACEHOLDER, \reg
	rdt_secret_fixup \name, \value, \from, 8
.endm

/*
 * Function \name_call: the way in, ordinary code. R11 tells where to go on. To the unwinder
 * \name_enter is a function that has just been called until after the crossing. Who is brought out
 * by force has lost the callee-saved registers. If the host has destroyed the secret, zeros
 * are in its place: ADD to what RAX points at.
 */
.macro rdt_secret_call name:req
	.text
	.balign	16
	.type	\name\()_enter, @function
\name\()_enter:
	leaq	.Lrdt_back_\name(%rip), %r11
	xorl	%eax, %eax
	jmp	\name\()_gate
	.size	\name\()_enter, . - \name\()_enter
	.type	\name\()_gone, @function
\name\()_gone:
.Lrdt_gone_\name:
	movq	$-19, %rax		/* -ENODEV */
.Lrdt_back_\name:
	RET
	.size	\name\()_gone, . - \name\()_gone
	RDT_SECRET_EXTABLE(\name\()_gate, .Lrdt_gone_\name)

	.balign	16
	.globl	\name\()_call
	.type	\name\()_call, @function
\name\()_call:
	.irp	r, %rbx, %rbp, %r12, %r13, %r14, %r15
	pushq	\r
	.endr
	call	\name\()_enter
	.irp	r, %r15, %r14, %r13, %r12, %rbp, %rbx
	popq	\r
	.endr
	RET
	.size	\name\()_call, . - \name\()_call
.endm

#else /* !__ASSEMBLY__ */

#include <linux/types.h>

/**
 * struct rdt_secret_fixup - an entry of .redoubt.fixups.
 * @offset: of the operand from the gate.
 * @length: bytes.
 * @from: which byte of the value its first one is.
 * @name: of the secret.
 * @value: of the value, as the host's operator knows it.
 */
struct rdt_secret_fixup {
	__s64 offset;
	__u32 length;
	__u32 from;
	char name[RDT_SECRET_NAME_MAX];
	char value[RDT_SECRET_NAME_MAX];
};

#define RDT_STR_(x)	#x
#define RDT_STR(x)	RDT_STR_(x)

/* How this kernel returns from a function that is written in assembly. */
#ifdef ASM_RET
#define RDT_SECRET_RET	ASM_RET
#else
#define RDT_SECRET_RET	"ret; int3\n"
#endif

/**
 * RDT_SECRET_DECLARE() - what a secret consists of, and the way in.
 * @name: of the secret
 *
 * name_call() returns what the code leaves in RAX, or a negative errno from the host.
 * It may change the registers that any function may change.
 */
#define RDT_SECRET_DECLARE(name)						\
	extern char name##_gate[], name##_exit[], name##_end[];			\
	long name##_call(unsigned long a, unsigned long b, unsigned long c, unsigned long d)

/**
 * RDT_SECRET_DEFINE() - a secret that is a C function.
 * @name: of the secret
 *
 * Once in a file, which is compiled with the flags that Documentation/secrets.md names:
 *
 *	RDT_SECRET_DEFINE(example)
 *	{
 *		u64 k = rdt_secret_u64(example, example_key, 0);
 *
 *		rdt_secret_leave(example, (a ^ k) * 0x9e3779b97f4a7c15);
 *	}
 *
 * It must not use memory, and it must fit a page. The compiler does not promise either:
 * scripts/secret-manifest looks at what it made.
 */
#define RDT_SECRET_DEFINE(name)							\
	asm(".pushsection .text..redoubt.secret." #name ", \"ax\", @progbits\n"	\
	    "	.globl	" #name "_gate, " #name "_exit, " #name "_end, " #name "_fill\n" \
	    "	.set	" #name "_gate, " #name "_main\n"			\
	    RDT_SECRET_NOENDBR	/* here the function will be */			\
	    "	.subsection 1\n"						\
	    "	.type	" #name "_fill, @function\n"				\
	    #name "_fill:\n"							\
	    "	.balign	4096, " RDT_STR(RDT_SECRET_FILL) "\n"			\
	    "	.size	" #name "_fill, . - " #name "_fill\n"			\
	    "	.type	" #name "_exit, @function\n"				\
	    #name "_exit:\n"							\
	    ".Lrdt_exit_" #name ":\n"						\
	    RDT_SECRET_NOENDBR							\
	    "	ud2\n"								\
	    "	.fill	" #name "_exit + 4096 - ., 1, " RDT_STR(RDT_SECRET_FILL) "\n"	\
	    "	.size	" #name "_exit, . - " #name "_exit\n"			\
	    #name "_end:\n"							\
	    "	.popsection\n"							\
	    "	.pushsection .text\n"						\
	    "	.balign	16\n"							\
	    "	.type	" #name "_enter, @function\n"				\
	    #name "_enter:\n"							\
	    "	leaq	.Lrdt_back_" #name "(%rip), %r11\n"			\
	    "	xorl	%eax, %eax\n"						\
	    "	jmp	" #name "_gate\n"					\
	    "	.size	" #name "_enter, . - " #name "_enter\n"			\
	    "	.type	" #name "_gone, @function\n"				\
	    #name "_gone:\n"							\
	    ".Lrdt_gone_" #name ":\n"						\
	    "	movq	$-19, %rax\n"						\
	    ".Lrdt_back_" #name ":\n"						\
	    "	" RDT_SECRET_RET "\n"						\
	    "	.size	" #name "_gone, . - " #name "_gone\n"			\
	    RDT_SECRET_EXTABLE(name##_gate, .Lrdt_gone_##name)			\
	    "	.balign	16\n"							\
	    "	.globl	" #name "_call\n"					\
	    "	.type	" #name "_call, @function\n"				\
	    #name "_call:\n"							\
	    "	.irp	r, %rbx, %rbp, %r12, %r13, %r14, %r15\n"		\
	    "	pushq	\\r\n"							\
	    "	.endr\n"							\
	    "	call	" #name "_enter\n"					\
	    "	.irp	r, %r15, %r14, %r13, %r12, %rbp, %rbx\n"		\
	    "	popq	\\r\n"							\
	    "	.endr\n"							\
	    "	" RDT_SECRET_RET "\n"						\
	    "	.size	" #name "_call, . - " #name "_call\n"			\
	    "	.popsection\n");						\
	extern char name##_fill[], name##_exit[];				\
	RDT_SECRET_UNCHECKED(name##_fill);					\
	RDT_SECRET_UNCHECKED(name##_exit);					\
	static void name##_main(unsigned long, unsigned long, unsigned long,	\
				unsigned long);					\
	RDT_SECRET_UNCHECKED(name##_main);					\
	static __attribute__((__used__, __noinline__, __noclone__, __noreturn__,	\
			      __aligned__(4096),				\
			      __section__(".text..redoubt.secret." #name)))	\
	void name##_main(unsigned long a, unsigned long b, unsigned long c, unsigned long d)

/* Says where the placeholder of the instruction before is: as rdt_secret_fixup above. */
#define RDT_SECRET_FIXUP(name, value, from, length)				\
	"991:	.pushsection .redoubt.fixups, \"a\", @progbits\n"		\
	"	.quad	991b - " #length " - " #name "_main\n"			\
	"	.long	" #length ", " #from "\n"				\
	"992:	.asciz	\"" #name "\"\n"					\
	"	.fill	64 - (. - 992b), 1, 0\n"				\
	"993:	.asciz	\"" #value "\"\n"					\
	"	.fill	64 - (. - 993b), 1, 0\n"				\
	"	.popsection\n"

/* Eight bytes of a value, from byte @from on; little endian. */
#define rdt_secret_u64(name, value, from) ({					\
	__u64 v_;								\
	asm volatile("movabsq $" RDT_STR(RDT_SECRET_PLACEHOLDER) ", %0\n"	\
		     RDT_SECRET_FIXUP(name, value, from, 8) : "=r" (v_));	\
	v_;									\
})

/* The way out, instead of a return. */
#define rdt_secret_leave(name, result) do {					\
	asm volatile("jmp .Lrdt_exit_" #name : : "a" ((__u64)(result)));	\
	__builtin_unreachable();						\
} while (0)

#endif /* !__ASSEMBLY__ */
#endif /* _REDOUBT_SECRET_H */
