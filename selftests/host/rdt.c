// SPDX-License-Identifier: GPL-2.0
#include "rdt.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tap.h"

int rdt_dev(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/redoubt", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		tap_bail("/dev/redoubt");
	return fd;
}

int rdt_attach_fd(int vm_fd)
{
	struct rdt_attach a = { .vm_fd = vm_fd };

	return ioctl(rdt_dev(), RDT_ATTACH, &a) ? -1 : a.fd;
}

struct rdt *rdt_wrap(int fd, uint32_t id)
{
	struct rdt *r = calloc(1, sizeof(*r));
	const struct rdt_ring *head;

	head = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (head == MAP_FAILED)
		tap_bail("mmap of the ring's header");
	r->size = head->data_offset + (size_t)head->records * head->record_size;
	munmap((void *)head, 4096);
	r->ring = mmap(NULL, r->size, PROT_READ, MAP_SHARED, fd, 0);
	if (r->ring == MAP_FAILED)
		tap_bail("mmap of the ring");
	r->fd = fd;
	r->id = id;
	rdt_drain(r);
	return r;
}

struct rdt *rdt_attach(int vm_fd)
{
	struct rdt_attach a = { .vm_fd = vm_fd };

	if (ioctl(rdt_dev(), RDT_ATTACH, &a))
		tap_bail("RDT_ATTACH");
	return rdt_wrap(a.fd, a.vm_id);
}

void rdt_close(struct rdt *r)
{
	munmap((void *)r->ring, r->size);
	close(r->fd);
	free(r);
}

uint64_t rdt_head(struct rdt *r)
{
	return __atomic_load_n(&r->ring->head, __ATOMIC_ACQUIRE);
}

uint64_t rdt_count(struct rdt *r, unsigned int type)
{
	return __atomic_load_n(&r->ring->count[type], __ATOMIC_ACQUIRE);
}

bool rdt_quiet(struct rdt *r)
{
	struct rdt_event ev;
	bool none = true;

	for (; rdt_next(r, &ev); none = false)
		rdt_print(&ev);
	return none;
}

void rdt_drain(struct rdt *r)
{
	r->next = rdt_head(r) + 1;
}

bool rdt_next(struct rdt *r, struct rdt_event *ev)
{
	for (;;) {
		uint64_t head = rdt_head(r);
		const struct rdt_event *rec;

		if (r->next > head)
			return false;
		rec = (const void *)((const char *)r->ring + r->ring->data_offset);
		rec += (r->next - 1) % r->ring->records;
		if (__atomic_load_n(&rec->seq, __ATOMIC_ACQUIRE) == r->next) {
			memcpy(ev, rec, sizeof(*ev));
			__atomic_thread_fence(__ATOMIC_ACQUIRE);
			if (__atomic_load_n(&rec->seq, __ATOMIC_RELAXED) == r->next) {
				ev->seq = r->next++;
				return true;
			}
		}
		/* Overwritten. */
		r->next++;
		r->lost++;
	}
}

bool rdt_find(struct rdt *r, unsigned int type, struct rdt_event *ev)
{
	while (rdt_next(r, ev))
		if (ev->type == type)
			return true;
	return false;
}

struct rdt_vm_info rdt_info(struct rdt *r)
{
	struct rdt_vm_info info;

	if (ioctl(r->fd, RDT_VM_INFO, &info))
		tap_bail("RDT_VM_INFO");
	return info;
}

int rdt_protect(struct rdt *r, uint64_t gpa, uint64_t pages, unsigned int action, unsigned int cls)
{
	struct rdt_protect p = { .gpa = gpa, .pages = pages, .action = action, .cls = cls };

	return ioctl(r->fd, RDT_VM_PROTECT, &p) ? -errno : 0;
}

void rdt_print(const struct rdt_event *ev)
{
	tap_diag("event %llu type %u action %u class %#x vcpu %u cpl %u view %u code %u size %u gpa %#llx gva %#llx rip %#llx cr3 %#llx range %#llx+%llu old %#llx new %#llx flags %#x",
		 ev->seq, ev->type, ev->action, ev->cls, ev->vcpu, ev->cpl, ev->view, ev->code,
		 ev->size, ev->gpa, ev->gva, ev->rip, ev->cr3, ev->range_gpa, ev->range_pages,
		 ev->old_val, ev->new_val, ev->flags);
}
