// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoint: each event of the ring is there too, with the same fields, while
 * it is switched on; filters work; nothing comes while it is off.
 */
#include <fcntl.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define TRACING	"/sys/kernel/tracing/"
#define EVENT	TRACING "events/redoubt/redoubt_event/"
#define RAM	(32ul << 20)
#define NODES	GUEST_FREE
#define DENY	(GUEST_FREE + 0x100000)
#define LOG	(GUEST_FREE + 0x200000)

#define gp 13

static char text[1 << 17];

static void put(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, what, strlen(what)) != (ssize_t)strlen(what))
		tap_bail("%s", path);
	close(fd);
}

static const char *get(const char *path)
{
	int fd = open(path, O_RDONLY);
	size_t n = 0;
	ssize_t got;

	if (fd < 0)
		tap_bail("%s", path);
	while ((got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += got;
	text[n] = 0;
	close(fd);
	return text;
}

static unsigned int count(const char *in, const char *what)
{
	unsigned int n = 0;

	for (; (in = strstr(in, what)); in += strlen(what))
		n++;
	return n;
}

static void forget(void)
{
	put(TRACING "trace", "");
}

static const char *type_name(unsigned int type)
{
	switch (type) {
	case RDT_EV_WRITE: return "write";
	case RDT_EV_TREE_WRITE: return "tree_write";
	case RDT_EV_UNPROTECT: return "unprotect";
	case RDT_EV_GATE: return "gate";
	case RDT_EV_ATTACH: return "attach";
	case RDT_EV_DETACH: return "detach";
	}
	return "?";
}

/* The line that an event must have left, as trace.h has it. */
static const char *expected(const struct rdt_event *ev)
{
	static const char *const action[] = { "none", "log", "deny", "freeze" };
	static char line[512];

	snprintf(line, sizeof(line),
		 "redoubt_event: vm %u seq %llu %s action %s code %u vcpu %u cpl %u view %u rip %llx cr3 %llx gpa %llx gva %llx size %u old %llx new %llx range %llx+%llu class %u flags %x\n",
		 ev->vm_id, ev->seq, type_name(ev->type), action[ev->action], ev->code, ev->vcpu, ev->cpl,
		 ev->view, ev->rip, ev->cr3, ev->gpa, ev->gva, ev->size, ev->old_val, ev->new_val,
		 ev->range_gpa, ev->range_pages, ev->cls, ev->flags);
	return line;
}

/* Every event since @r last looked has its line, and there is no other. */
static void all_there(struct rdt *r, unsigned int want, const char *what)
{
	const char *trace = get(TRACING "trace");
	unsigned int n = 0, missing = 0;
	struct rdt_event ev;

	while (rdt_next(r, &ev)) {
		n++;
		if (count(trace, expected(&ev)) != 1) {
			missing++;
			tap_diag("not there, or not once: %s", expected(&ev));
		}
	}
	is(n, want, "A11 trace, %s: %u events in the ring", what, want);
	is(missing, 0, "A11 trace, %s: each is there, once, as it is in the ring", what);
	is(count(trace, "redoubt_event:"), want, "A11 trace, %s: and no other", what);
	if (missing)
		tap_diag("%s", trace);
}

static void test_format(void)
{
	static const char *const field[] = {
		"u64 seq;", "u64 gpa;", "u64 gva;", "u64 rip;", "u64 cr3;", "u64 range_gpa;",
		"u64 range_pages;", "u64 old_val;", "u64 new_val;", "u32 vm_id;", "u32 vcpu;", "u32 flags;",
		"u16 type;", "u8 action;", "u8 cls;", "u8 cpl;", "u8 view;", "u8 size;", "u8 code;",
	};
	const char *format = get(EVENT "format");

	for (unsigned int i = 0; i < sizeof(field) / sizeof(field[0]); i++)
		is(count(format, field[i]), 1, "A11 trace format: %s", field[i]);
}

int main(void)
{
	struct rdt_event ev;
	struct vcpu *v;
	struct rdt *r;
	struct vm *vm;

	kvm_dev();
	rdt_dev();
	test_format();
	forget();
	put(EVENT "enable", "1");

	vm = vm_create(RAM, 1, 0);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	r->next = 1;
	all_there(r, 1, "attach");
	forget();

	vcpu_call(v, g_node_add, NODES, 1);
	vcpu_call(v, g_hc, RDT_HC_PROTECT, DENY, 1, RDT_ATTR(RDT_ACT_DENY, RDT_CLS_SYSCALL));
	vcpu_call(v, g_hc, RDT_HC_PROTECT, LOG, 2, RDT_ATTR(RDT_ACT_LOG, RDT_CLS_TEXT));
	is(vcpu_call(v, g_store, DENY + 8, 0x1234), gp, "A3 a store is denied");
	is(vcpu_call(v, g_store, LOG + PAGE_SIZE + 16, 0x5678), -1, "A10 a store is logged");
	is(vm_u64(vm, LOG + PAGE_SIZE + 16), 0x5678, "A10 and done");
	is(vcpu_call(v, g_store, NODES + 8, 0), gp, "A2 a store to a node page is denied");
	vcpu_call(v, g_hc, RDT_HC_UNPROTECT, DENY, 1, 0);
	vcpu_call(v, g_hc, RDT_HC_LEAVE, 0, 0, 0);
	all_there(r, 5, "writes and calls");

	forget();
	put(EVENT "filter", "action == 2 && gpa >= 0x1000");
	rdt_drain(r);
	vcpu_call(v, g_store, LOG, 1);
	vcpu_call(v, g_store, DENY, 2);
	vcpu_call(v, g_store, LOG, 3);
	get(TRACING "trace");
	is(count(text, "redoubt_event:"), 1, "A11 trace: a filter lets one of three through");
	ok(rdt_next(r, &ev) && rdt_next(r, &ev) && count(text, expected(&ev)) == 1,
	   "A11 trace: that which it asks for");
	put(EVENT "filter", "0");

	put(EVENT "enable", "0");
	forget();
	rdt_drain(r);
	vcpu_call(v, g_store, DENY, 4);
	ok(rdt_next(r, &ev), "A11 trace, switched off: an event in the ring");
	is(count(get(TRACING "trace"), "redoubt_event:"), 0, "A11 trace, switched off: none in the trace");

	put(EVENT "enable", "1");
	vm_destroy(vm);
	get(TRACING "trace");
	is(count(text, " vm_dead action none "), 1, "A11 trace: the VM's end");
	/* Left switched on: the module must unload all the same. */
	rdt_close(r);
	return tap_end();
}
