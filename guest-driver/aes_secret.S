/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AES-256 with two keys that are operands of its own instructions.
 *
 *   long rdt_aes_call(void *dst, const void *src, unsigned long batches, unsigned long flags)
 *
 *   gate page   keys, round keys and rounds. Round keys are made on the fly, in both
 *               directions; they and the keys are in RAX and XMM8-11 only, and these are zero
 *               whenever the gate page is left. No branch depends on key or data
 *   text page   blocks from memory into XMM0-7 (the upper halves of YMM0-7 are eight more),
 *               and back
 *
 *   RDI RSI RDX RCX   as called; R8D R9D R10D are the gate page's
 */
#include <linux/linkage.h>
#include "redoubt_secret.h"
#include "redoubt_aes.h"

#define BLOCKS	0,1,2,3,4,5,6,7

#define even	%xmm8		/* round keys 0, 2, ... 14 */
#define odd	%xmm9		/* 1, 3, ... 13 */
#define f	%xmm10
#define t	%xmm11

.macro all op key
	.irp i, BLOCKS
	\op	\key, %xmm\i
	.endr
.endm

/* Key \value is the first two round keys. */
.macro load_key value
	rdt_secret_load rdt_aes, \value, 0, %rax
	movq	%rax, even
	rdt_secret_load rdt_aes, \value, 8, %rax
	pinsrq	$1, %rax, even
	rdt_secret_load rdt_aes, \value, 16, %rax
	movq	%rax, odd
	rdt_secret_load rdt_aes, \value, 24, %rax
	pinsrq	$1, %rax, odd
.endm

/* \key ^= \key << 32 ^ \key << 64 ^ \key << 96 ^ f */
.macro mix key
	movdqa	\key, t
	.rept 3
	pslldq	$4, t
	pxor	t, \key
	.endr
	pxor	f, \key
.endm

/* The round key after next, in the place of the one before. R8D is the round constant. */
.macro next_even
	aeskeygenassist $0, odd, f
	pshufd	$0xff, f, f
	movd	%r8d, t
	pshufd	$0, t, t
	pxor	t, f
	mix	even
.endm

.macro next_odd
	aeskeygenassist $0, even, f
	pshufd	$0xaa, f, f
	mix	odd
.endm

/* The reverse: \key ^= \key << 32; f, of what was between, belongs to word 0 alone. */
.macro unmix key
	movdqa	\key, t
	pslldq	$4, t
	pxor	t, \key
.endm

.macro last_even
	unmix	even
	aeskeygenassist $0, odd, f
	psrldq	$12, f
	movd	%r8d, t
	pxor	t, f
	pxor	f, even
.endm

.macro last_odd
	unmix	odd
	aeskeygenassist $0, even, f
	pslldq	$4, f
	psrldq	$12, f
	pxor	f, odd
.endm

	rdt_secret_begin rdt_aes
	jmp	.Lstart

.Lcrypt:
	movl	$2, %r10d		/* halves to go */
.Lhalf:
	testl	$RDT_AES_KEY2, %ecx
	jnz	.Lkey2
	load_key aes_key1
	jmp	.Lloaded
.Lkey2:
	load_key aes_key2
.Lloaded:
	movl	$1, %r8d
	movl	$6, %r9d
	testl	$RDT_AES_DECRYPT, %ecx
	jnz	.Lschedule

	all	pxor, even
	all	aesenc, odd
.Lencrypt:
	next_even
	addl	%r8d, %r8d
	all	aesenc, even
	next_odd
	all	aesenc, odd
	decl	%r9d
	jnz	.Lencrypt
	next_even
	all	aesenclast, even
	jmp	.Ldone

.Lschedule:
	next_even
	addl	%r8d, %r8d
	next_odd
	decl	%r9d
	jnz	.Lschedule
	next_even
	/* Round keys 14 and 13; R8D is the constant of 14. */
	all	pxor, even
	movl	$6, %r9d
.Ldecrypt:
	last_even
	shrl	%r8d
	aesimc	odd, f
	all	aesdec, f
	last_odd
	aesimc	even, f
	all	aesdec, f
	decl	%r9d
	jnz	.Ldecrypt
	/* Round keys 2 and 1 */
	last_even
	aesimc	odd, f
	all	aesdec, f
	all	aesdeclast, even

.Ldone:
	testl	$RDT_AES_YMM, %ecx
	jz	.Lclear
	.irp i, BLOCKS
	vperm2f128 $1, %ymm\i, %ymm\i, %ymm\i
	.endr
	decl	%r10d
	jnz	.Lhalf
.Lclear:
	xorl	%eax, %eax
	.irp r, even, odd, f, t
	pxor	\r, \r
	.endr
	jmp	.Lstore

	rdt_secret_text rdt_aes
.Lstart:
	testq	%rdx, %rdx
	jz	.Lout
.Lload:
	testl	$RDT_AES_YMM, %ecx
	jnz	.Lload_ymm
	.irp i, BLOCKS
	movdqu	16 * \i(%rsi), %xmm\i
	.endr
	jmp	.Lcrypt
.Lload_ymm:
	.irp i, BLOCKS
	vmovdqu	32 * \i(%rsi), %ymm\i
	.endr
	jmp	.Lcrypt

.Lstore:
	testl	$RDT_AES_YMM, %ecx
	jnz	.Lstore_ymm
	.irp i, BLOCKS
	movdqu	%xmm\i, 16 * \i(%rdi)
	.endr
	addq	$RDT_AES_BATCH_XMM, %rsi
	addq	$RDT_AES_BATCH_XMM, %rdi
	jmp	.Lnext
.Lstore_ymm:
	.irp i, BLOCKS
	vmovdqu	%ymm\i, 32 * \i(%rdi)
	.endr
	addq	$RDT_AES_BATCH_YMM, %rsi
	addq	$RDT_AES_BATCH_YMM, %rdi
.Lnext:
	decq	%rdx
	jnz	.Lload
.Lout:
	xorl	%eax, %eax
	rdt_secret_leave rdt_aes
	rdt_secret_end rdt_aes

	rdt_secret_call rdt_aes
