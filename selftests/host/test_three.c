// SPDX-License-Identifier: GPL-2.0
/*
 * Three domains that attack each other (C4, C5, C6): from inside, by addresses, by hypercalls and by a
 * window over frames that become another's; one after the other, then on three vCPUs at once.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "cell.h"
#include "driver.h"
#include "leak.h"
#include "tap.h"

#define RAM	(32ul << 20)
#define NR	3
#define AREA(n)	(GUEST_FREE + 0x400000 + (n) * 0x100000ul)
#define WINDOW(n) (GUEST_FREE + 0x40000 + (n) * PAGE_SIZE)
#define LATER	(GUEST_FREE + 0xa00000)		/* in a window first, a domain's then */
#define ATTEMPTS 16				/* of one attack() */
#define ROUNDS	(guest_is_intel ? 3 : 20)
#define WORD(n)	(0x5ec2e70000000000ul + (n) + 1)

static struct vm *vm;
static struct rdt *r;
static struct cell cell[NR];

static const struct cell_image image = LEAK_IMAGE(1, .slots = 2, .flags = RDT_DOM_VECTOR);

static int64_t call(struct vcpu *v, int n, uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_leak_call, op, a, b, cell_gate(&cell[n]));

	vcpu_must_end(v, "a call");
	return ret;
}

static bool intact(struct vcpu *v, int n)
{
	return call(v, n, LEAK_LOAD, CELL_GVA + LEAK_DATA, 0) == (int64_t)WORD(n);
}

/* From inside of domain n. Its window is the guest's memory: anybody can prepare what it asks. */
static int64_t hypercall(struct vcpu *v, int n, const uint64_t words[5])
{
	memcpy(vm_host(vm, WINDOW(n)), words, 5 * sizeof(*words));
	return call(v, n, LEAK_HYPERCALL, CELL_WINDOW, guest_is_intel);
}

/* What n does to another; how many of the attempts did not end as they must. */
static unsigned int attack(struct vcpu *v, int n, int other, bool tell)
{
	const struct cell *c = &cell[other];
	const uint64_t calls[][5] = {
		{ RDT_HC_DOM_ENTER, c->id, 0, 0, 0 },
		{ RDT_HC_DOM_ADD, c->id, AREA(n) + 0x80000, CELL_GVA + 0x100000, RDT_DOM_PAGES(1, RDT_DOM_DATA) },
		{ RDT_HC_DOM_SHARE, c->id, WINDOW(n), CELL_WINDOW, 1 },
		{ RDT_HC_DOM_SEAL, c->id, 0, 0, 0 },
		{ RDT_HC_DOM_MEASURE, c->id, 0, 0, 0 },
		{ RDT_HC_DOM_DESTROY, c->id, 0, 0, 0 },
		{ RDT_HC_DOM_CREATE, CELL_DESC, 0, 0, 0 },
	};
	/* Its frames, where the guest's kernel has them, and the entrances of a domain. */
	const uint64_t there[] = { c->gpa + LEAK_DATA, c->gpa, c->gpa + cell_stacks(c), c->gpa + cell_pages(c) * PAGE_SIZE };
	unsigned int wrong = 0, i;
	int64_t ret;

	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		ret = hypercall(v, n, calls[i]);
		wrong += ret != -EPERM;
		if (tell)
			is(ret, -EPERM, "C4 %d inside: hypercall %#lx on %d", n, calls[i][0], other);
	}
	for (i = 0; i < sizeof(there) / sizeof(there[0]); i++) {
		ret = call(v, n, LEAK_LOAD, there[i], 0);
		wrong += ret != -EPERM;
		if (tell)
			is(ret, -EPERM, "C5 %d inside: a read of %d's %#lx", n, other, there[i]);
		ret = call(v, n, LEAK_STORE, there[i], 0x6666);
		wrong += ret != -EPERM;
		if (tell)
			is(ret, -EPERM, "C5 %d inside: a write", n);
	}
	ret = call(v, n, LEAK_JUMP, cell_gate(c), 0);
	wrong += ret != -EPERM;
	if (tell)
		is(ret, -EPERM, "C6 %d inside: a jump to %d's gate", n, other);
	return wrong;
}

static void in_turn(void)
{
	struct vcpu *v = &vm->vcpu[0];
	unsigned int n, other;
	uint64_t before;

	for (n = 0; n < NR; n++)
		for (other = 0; other < NR; other++) {
			if (other == n)
				continue;
			before = rdt_head(r);
			is(attack(v, n, other, true), 0, "C5 all of %d's attempts on %d fail", n, other);
			is(rdt_head(r) - before, ATTEMPTS, "C5 and each is an alert");
			ok(intact(v, other), "C5 %d is as it was", other);
		}
}

/* A thread of another's that was interrupted inside: its token is no way in from inside. */
static void tokens(void)
{
	struct vcpu *v = &vm->vcpu[0], *v1 = &vm->vcpu[1];
	uint64_t words[5] = { RDT_HC_RESUME };

	/* An event that its handler stops at: the host sees the stub with the token in RDI. */
	vm_var(vm, leak_guest)->stop_every = 1;
	vcpu_prepare(v1, g_leak_call, LEAK_WORK, 8, LEAK_INT3, cell_gate(&cell[1]));
	vcpu_run(v1);
	vm_var(vm, leak_guest)->stop_every = 0;
	is(v1->stop, STOP_SYNC, "C10 a thread of 1's is interrupted inside");
	words[1] = ((struct trap_frame *)vm_host(vm, LEAK_LOG))->rdi;
	ok(words[1] >> 63, "C10 and has a token");
	is(hypercall(v, 0, words), -EPERM, "C6 0 inside: RESUME with 1's token");
	is(hypercall(v, 2, words), -EPERM, "C6 2 inside: RESUME with 1's token");
	is((int64_t)vcpu_resume(v1), 0, "C10 its own thread goes on, its result is right");
	vcpu_must_end(v1, "the interrupted call");
	ok(intact(v, 1), "C6 1 is as it was");
}

/* Shared when it was nobody's, then given to another domain. */
static void window_first(void)
{
	struct vcpu *v = &vm->vcpu[0];
	struct cell a = { .shared = LATER }, b = {};
	const uint64_t word = 0x1a7e41a7e4;
	int64_t ret;

	cell_make(v, &a, &image, AREA(4));
	cell_place(&b, vm, &image, LATER - LEAK_DATA);
	ret = cell_build(v, &b);
	if (ret) {
		/* Refused is as good. */
		is(ret, -EBUSY, "C5 a frame in another's window is not taken");
	} else {
		is(cell_seal(v, &b), 0, "C5 a frame that was in another's window becomes a domain's");
		is(cell_install(r, &b, LEAK_DATA, &word, 8), 0, "C5 with a word that only this one has");
		cell[0] = a;
		is(call(v, 0, LEAK_LOAD, CELL_WINDOW, 0), -EPERM, "C5 by the window: a read");
		is(call(v, 0, LEAK_STORE, CELL_WINDOW, 1), -EPERM, "C5 by the window: a write");
		cell[0] = b;
		is(call(v, 0, LEAK_LOAD, CELL_GVA + LEAK_DATA, 0), (int64_t)word, "C5 its owner has it as it was");
	}
	is(cell_destroy(v, &b), 0, "C8 it goes");
	is(cell_destroy(v, &a), 0, "C8 and so does the other");
}

static unsigned int failed[NR], worked[NR];

static void *fight(void *arg)
{
	const int n = (int)(intptr_t)arg;
	struct vcpu *v = &vm->vcpu[n];

	for (int round = 0; round < ROUNDS; round++) {
		failed[n] += attack(v, n, (n + 1) % NR, false) + attack(v, n, (n + 2) % NR, false);
		/* Its registers and stack are full of its own secret. */
		worked[n] += call(v, n, LEAK_WORK, 400, 0) == 0;
		failed[n] += !intact(v, n);
	}
	return NULL;
}

static void at_once(void)
{
	pthread_t t[NR];

	for (intptr_t n = 0; n < NR; n++)
		pthread_create(&t[n], NULL, fight, (void *)n);
	for (int n = 0; n < NR; n++)
		pthread_join(t[n], NULL);
	for (int n = 0; n < NR; n++) {
		is(failed[n], 0, "C5 all three at once: %d's attempts all fail, its data is its own", n);
		is(worked[n], ROUNDS, "C4 all three at once: %d's own work is right", n);
	}
}

int main(void)
{
	struct vcpu *v;

	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = vm_create(RAM, NR, VM_IRQCHIP);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	cell_allow(v, r);
	for (int n = 0; n < NR; n++) {
		const uint64_t word = WORD(n);

		cell[n].shared = WINDOW(n);
		cell_make(v, &cell[n], &image, AREA(n));
		is(cell_install(r, &cell[n], LEAK_DATA, &word, 8), 0, "C4 a domain with a word of its own");
		vcpu_call(&vm->vcpu[n], g_leak_setup, 0);
	}
	in_turn();
	tokens();
	at_once();
	for (int n = 0; n < NR; n++) {
		ok(intact(v, n), "C5 %d is as it was", n);
		is(cell_destroy(v, &cell[n]), 0, "C8 it goes");
	}
	window_first();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
