// SPDX-License-Identifier: GPL-2.0
/*
 * domain-host: the operator's side for domain-test, of the one VM there is.
 *
 *   domain-host quota DOMAINS FRAMES_EACH FRAMES
 *   domain-host list                a line for each domain
 *   domain-host destroy ID
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/redoubt.h>

static int vm(void)
{
	struct rdt_list_entry entry = {};
	struct rdt_list list = { .nr = 1, .entries = (uintptr_t)&entry };
	struct rdt_open open_vm = {};
	int fd = open("/dev/redoubt", O_RDWR);

	if (fd < 0 || ioctl(fd, RDT_LIST, &list) || !list.nr)
		return -1;
	open_vm.vm_id = entry.vm_id;
	return ioctl(fd, RDT_OPEN, &open_vm) ? -1 : open_vm.fd;
}

static int list(int fd)
{
	struct rdt_domain_info d = {};
	int i;

	for (;; d = (struct rdt_domain_info){ .view = d.view + 1 }) {
		if (ioctl(fd, RDT_VM_DOMAIN, &d))
			return errno == ENOENT ? 0 : -1;
		printf("id:%#llx state:%u view:%u frames:%llu shared:%llu busy:%u enters:%llu aexits:%llu measurement:",
		       d.id, d.state, d.view, d.frames, d.shared, d.slots_busy, d.enters, d.aexits);
		for (i = 0; i < 32; i++)
			printf("%02x", d.measurement[i]);
		putchar('\n');
	}
}

int main(int argc, char **argv)
{
	struct rdt_domain_quota q = {};
	int fd = vm(), ret = -1;
	__u64 id;

	if (fd < 0) {
		fprintf(stderr, "domain-host: no VM: %s\n", strerror(errno));
		return 2;
	}
	if (argc == 5 && !strcmp(argv[1], "quota")) {
		q.domains = atoi(argv[2]);
		q.frames_each = atoi(argv[3]);
		q.frames = atoi(argv[4]);
		ret = ioctl(fd, RDT_VM_DOM_QUOTA, &q);
	} else if (argc == 2 && !strcmp(argv[1], "list")) {
		ret = list(fd);
	} else if (argc == 3 && !strcmp(argv[1], "destroy")) {
		id = strtoull(argv[2], NULL, 0);
		ret = ioctl(fd, RDT_VM_DOM_DESTROY, &id);
	} else {
		errno = EINVAL;
	}
	if (ret)
		perror("domain-host");
	return !!ret;
}
