// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/redoubt: what the driver did and what the inside's table says.
 * Reading takes no lock: the table can be read and not written in normal mode.
 */
#include <linux/kobject.h>
#include <linux/sysfs.h>
#include <linux/slab.h>
#include "driver.h"

static struct kobject *dir;

static const char *action_name(unsigned int action)
{
	static const char *const name[] = { "none", "log", "deny", "freeze" };

	return action < ARRAY_SIZE(name) ? name[action] : "?";
}

static const char *class_name(unsigned int cls)
{
	static const char *const name[] = {
		[RDT_CLS_OTHER] = "other", [RDT_CLS_TEXT] = "text", [RDT_CLS_RODATA] = "rodata",
		[RDT_CLS_IDT] = "idt", [RDT_CLS_SYSCALL] = "syscall",
		[RDT_CLS_PGTABLE] = "pgtable", [RDT_CLS_MODULE] = "module",
	};

	return cls < ARRAY_SIZE(name) ? name[cls] : "?";
}

static ssize_t version_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	return sysfs_emit(buf, "abi %ld, driver abi %d\n", rdt_hypercall(RDT_HC_VERSION, 0, 0, 0),
			  RDT_ABI_VERSION);
}

static ssize_t status_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	long st = rdt_hypercall(RDT_HC_STATUS, 0, 0, 0);
	unsigned int i, pages[4] = {};
	int at;

	if (st < 0)
		return sysfs_emit(buf, "host: error %ld\n", st);
	for (i = 0; i < rdt_inside_data.nr; i++)
		pages[rdt_inside_data.policy[i].action & 3] += rdt_inside_data.policy[i].pages;
	at = sysfs_emit(buf, "host: %s\nattached: %s\nintegrity mode: %s\ntree: %s\n",
			st & RDT_ST_EPT ? "Intel, EPT" : "AMD, NPT",
			st & RDT_ST_ATTACHED ? "yes" : "no", st & RDT_ST_SEALED ? "yes" : "no",
			st & RDT_ST_TREE_CORRUPT ? "CORRUPT" : "sound");
	if (rdt_sealed) {
		long ret = redoubt_call_wait(RDT_OP_CHECK, 0, 0, 0);

		at += sysfs_emit_at(buf, at, "policy table: %s\n",
				    !ret ? "sound" : ret == -EUCLEAN ? "CHANGED" : "out of reach");
	}
	if (!(st & RDT_ST_ATTACHED))
		return at + sysfs_emit_at(buf, at, "protected pages: none any more\n");
	at += sysfs_emit_at(buf, at, "protected pages: %u deny, %u log, %u freeze\n",
			    pages[RDT_ACT_DENY], pages[RDT_ACT_LOG], pages[RDT_ACT_FREEZE]);
	return at;
}

static ssize_t node_pages_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	return sysfs_emit(buf, "%u\n", rdt_node_pages);
}

static ssize_t slots_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	return sysfs_emit(buf, "%u\n", rdt_slots);
}

static ssize_t door_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	return sysfs_emit(buf, "%s\n", rdt_door_name);
}

static ssize_t counters_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	static const char *const name[RDT_OP_NR] = {
		"nop", "counter_inc", "protect", "unprotect", "lookup", "check", "selftest",
		"write_test", "read_test", "fault_test",
	};
	const struct rdt_inside *in = &rdt_inside_data;
	int at = 0, i;

	for (i = 0; i < RDT_OP_NR; i++)
		at += sysfs_emit_at(buf, at, "%s %llu\n", name[i], READ_ONCE(in->calls[i]));
	at += sysfs_emit_at(buf, at, "refused %llu\n", READ_ONCE(in->refused));
	for (i = 0; i < RDT_USER_COUNTERS; i++)
		at += sysfs_emit_at(buf, at, "user%d %llu\n", i, READ_ONCE(in->counter[i]));
	return at;
}

/* Lines of one width, so that any offset names its line. */
#define LINE	64

static void range_line(const struct rdt_policy *p, char *line)
{
	char text[LINE + 1];

	snprintf(text, sizeof(text), "%#014llx %8u %-6s %-8s %s", p->gpa, p->pages,
		 action_name(p->action), class_name(p->cls),
		 p->flags & RDT_F_REMOVABLE ? "removable" : "fixed");
	memset(line, ' ', LINE);
	memcpy(line, text, strlen(text));
	line[LINE - 1] = '\n';
}

static ssize_t ranges_read(struct file *file, struct kobject *k, struct bin_attribute *a,
			   char *buf, loff_t off, size_t count)
{
	const struct rdt_inside *in = &rdt_inside_data;
	unsigned int i, n = 0;
	size_t done = 0;
	char line[LINE];

	for (i = 0; i < READ_ONCE(in->nr) && done < count; i++) {
		size_t from;

		if (!in->policy[i].pages)
			continue;
		if (off >= ++n * LINE)
			continue;
		range_line(&in->policy[i], line);
		from = off % LINE;
		memcpy(buf + done, line + from, min(count - done, LINE - from));
		off += min(count - done, LINE - from);
		done += min(count - done, LINE - from);
	}
	return done;
}

static struct kobj_attribute version_attr = __ATTR_RO(version);
static struct kobj_attribute node_pages_attr = __ATTR_RO(node_pages);
static struct kobj_attribute slots_attr = __ATTR_RO(slots);
static struct kobj_attribute door_attr = __ATTR_RO(door);
/* For root only: these two enter integrity mode, or tell how often others do. */
static struct kobj_attribute status_attr = __ATTR_RO_MODE(status, 0400);
static struct kobj_attribute counters_attr = __ATTR_RO_MODE(counters, 0400);

static struct attribute *attrs[] = {
	&version_attr.attr, &status_attr.attr, &node_pages_attr.attr, &slots_attr.attr,
	&door_attr.attr, &counters_attr.attr, NULL
};

/* Physical addresses: for root only. */
static struct bin_attribute ranges_attr = {
	.attr = { .name = "ranges", .mode = 0400 },
	.read = ranges_read,
};
static struct bin_attribute *bin_attrs[] = { &ranges_attr, NULL };

static const struct attribute_group group = { .attrs = attrs, .bin_attrs = bin_attrs };

int rdt_status_init(void)
{
	int err;

	dir = kobject_create_and_add("redoubt", kernel_kobj);
	if (!dir)
		return -ENOMEM;
	err = sysfs_create_group(dir, &group);
	if (err)
		kobject_put(dir);
	return err;
}

void rdt_status_exit(void)
{
	sysfs_remove_group(dir, &group);
	kobject_put(dir);
}
