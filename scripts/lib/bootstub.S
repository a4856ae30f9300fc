/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands where a bzImage has its unpacking stub, in front of a kernel that lies
 * unpacked at the address it runs at (see bootimage.py): from 32-bit protected
 * mode (Documentation/arch/x86/boot.rst, "32-bit boot protocol") to the kernel's
 * 64-bit entry. %esi = boot_params throughout. Linked at 1 MiB, not relocatable.
 */
	.set	TABLES, 0x108000	/* six pages, in the gap before the kernel */
	.set	LOADFLAGS, 0x211
	.set	KASLR_FLAG, 2

	.code32
	.globl	_start
_start:
	cld
	cli
	/* what the stub leaves to the kernel: direct map and vmalloc at random */
	testb	$1, kaslr
	jz	1f
	orb	$KASLR_FLAG, LOADFLAGS(%esi)
1:
	/* identity map of 4 GiB in 2 MiB pages: one PML4, one PDPT, four PDs */
	movl	$TABLES, %edi
	xorl	%eax, %eax
	movl	$(6 * 1024), %ecx
	rep	stosl
	movl	$(TABLES + 0x1000 + 3), TABLES
	movl	$(TABLES + 0x2000 + 3), %eax
	movl	$(TABLES + 0x1000), %edi
	movl	$4, %ecx
2:	movl	%eax, (%edi)
	addl	$0x1000, %eax
	addl	$8, %edi
	loop	2b
	movl	$0x83, %eax		/* present, writable, large */
	movl	$(TABLES + 0x2000), %edi
	movl	$2048, %ecx
3:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	loop	3b

	movl	entry, %ebx
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$TABLES, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	lgdt	gdt_ptr
	movl	%cr0, %eax
	orl	$0x80000001, %eax	/* PG, PE */
	movl	%eax, %cr0
	ljmp	$0x10, $long_mode

	.code64
long_mode:
	movl	$0x18, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%esi, %esi		/* the upper halves are undefined here */
	movl	%ebx, %ebx
	jmp	*%rbx

	.balign	8
gdt:	.quad	0, 0
	.quad	0x00af9a000000ffff	/* 0x10: code, 64-bit */
	.quad	0x00cf92000000ffff	/* 0x18: data */
gdt_ptr:
	.word	. - gdt - 1
	.long	gdt
	.balign	4
	/* filled in by bootimage.py; they stay the last two words */
kaslr:	.long	0
entry:	.long	0
