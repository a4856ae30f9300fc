// SPDX-License-Identifier: GPL-2.0
#include "gnl.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"

int gnl_socket(uint32_t *portid)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	socklen_t size = sizeof(addr);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)) || getsockname(fd, (void *)&addr, &size))
		tap_bail("netlink socket");
	if (portid)
		*portid = addr.nl_pid;
	return fd;
}

void gnl_bufsize(int fd, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		tap_bail("SO_RCVBUFFORCE");
}

void gnl_begin(struct gnl_msg *m, uint16_t family, uint8_t cmd)
{
	static uint32_t seq;

	m->nlh = (struct nlmsghdr){ NLMSG_HDRLEN + GENL_HDRLEN, family, NLM_F_REQUEST | NLM_F_ACK, ++seq, 0 };
	m->genl = (struct genlmsghdr){ .cmd = cmd, .version = 1 };
}

void gnl_put(struct gnl_msg *m, uint16_t attr, const void *data, size_t bytes)
{
	struct nlattr *a = (void *)((char *)m + m->nlh.nlmsg_len);
	size_t room = NLA_ALIGN(NLA_HDRLEN + bytes);

	if (m->nlh.nlmsg_len + room > sizeof(*m))
		tap_bail("a request is too long");
	memset(a, 0, room);
	a->nla_len = NLA_HDRLEN + bytes;
	a->nla_type = attr;
	memcpy(a + 1, data, bytes);
	m->nlh.nlmsg_len += room;
}

int gnl_recv(int fd, void *buf, size_t size, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n = poll(&p, 1, ms);

	return n > 0 ? recv(fd, buf, size, 0) : n;
}

static int code(const struct nlmsghdr *nlh)
{
	return -((const struct nlmsgerr *)NLMSG_DATA(nlh))->error;
}

int gnl_call(int fd, struct gnl_msg *m, struct nlmsghdr *reply)
{
	static char buf[GNL_MAX];
	struct nlmsghdr *nlh = (void *)buf;

	if (reply)
		reply->nlmsg_len = 0;
	if (send(fd, m, m->nlh.nlmsg_len, 0) < 0)
		return errno;
	for (;;) {
		int n = gnl_recv(fd, buf, sizeof(buf), 60000);

		if (n <= 0)
			tap_bail("no answer from the module");
		if (nlh->nlmsg_seq != m->nlh.nlmsg_seq)
			continue;	/* an event */
		if (nlh->nlmsg_type == NLMSG_ERROR)
			return code(nlh);
		if (reply)
			memcpy(reply, nlh, nlh->nlmsg_len);
	}
}

int gnl_dump(int fd, struct gnl_msg *m, void (*each)(const struct nlmsghdr *nlh, void *arg), void *arg)
{
	static char buf[GNL_MAX];

	m->nlh.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	if (send(fd, m, m->nlh.nlmsg_len, 0) < 0)
		return errno;
	for (;;) {
		int n = gnl_recv(fd, buf, sizeof(buf), 60000);

		if (n <= 0)
			tap_bail("no answer from the module");
		for (struct nlmsghdr *nlh = (void *)buf; NLMSG_OK(nlh, (unsigned int)n); nlh = NLMSG_NEXT(nlh, n)) {
			if (nlh->nlmsg_type == NLMSG_ERROR)
				return code(nlh);
			if (nlh->nlmsg_type == NLMSG_DONE)
				return -*(int *)NLMSG_DATA(nlh);
			if (each)
				each(nlh, arg);
		}
	}
}

void gnl_parse(const void *data, size_t bytes, unsigned int max, const struct nlattr **out)
{
	memset(out, 0, (max + 1) * sizeof(*out));
	while (bytes >= NLA_HDRLEN) {
		const struct nlattr *a = data;
		size_t step = NLA_ALIGN(a->nla_len);
		unsigned int type = a->nla_type & NLA_TYPE_MASK;

		if (a->nla_len < NLA_HDRLEN || a->nla_len > bytes)
			tap_bail("an attribute of %u bytes where %zu are left", a->nla_len, bytes);
		if (type <= max && !out[type])
			out[type] = a;
		data = (const char *)data + step;
		bytes = step < bytes ? bytes - step : 0;
	}
}

void gnl_attrs(const struct nlmsghdr *nlh, struct gnl_attrs *out)
{
	gnl_parse((const char *)NLMSG_DATA(nlh) + GENL_HDRLEN, nlh->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN,
		  RDT_SB_A_MAX, out->a);
}

const struct nlattr *gnl_next(const struct nlmsghdr *nlh, uint16_t type, const struct nlattr *prev)
{
	const char *at = prev ? (const char *)prev + NLA_ALIGN(prev->nla_len) :
				(const char *)NLMSG_DATA(nlh) + GENL_HDRLEN;
	const char *end = (const char *)nlh + nlh->nlmsg_len;

	while (at + NLA_HDRLEN <= end) {
		const struct nlattr *a = (const void *)at;

		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		at += NLA_ALIGN(a->nla_len);
	}
	return NULL;
}

uint64_t gnl_num(const struct nlattr *a)
{
	uint64_t v = 0;

	if (a && gnl_len(a) <= 8)
		memcpy(&v, gnl_data(a), gnl_len(a));
	return v;
}

uint16_t gnl_family(int fd, uint32_t *events, uint32_t *power)
{
	static char buf[GNL_MAX];
	const struct nlattr *a[CTRL_ATTR_MAX + 1];
	struct nlmsghdr *reply = (void *)buf;
	static struct gnl_msg m;
	size_t left;

	gnl_begin(&m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	gnl_put(&m, CTRL_ATTR_FAMILY_NAME, RDT_SB_GENL_NAME, sizeof(RDT_SB_GENL_NAME));
	if (gnl_call(fd, &m, reply))
		return 0;
	gnl_parse((char *)NLMSG_DATA(reply) + GENL_HDRLEN, reply->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN, CTRL_ATTR_MAX, a);
	if (a[CTRL_ATTR_MCAST_GROUPS]) {
		const char *at = gnl_data(a[CTRL_ATTR_MCAST_GROUPS]);

		left = gnl_len(a[CTRL_ATTR_MCAST_GROUPS]);
		while (left >= NLA_HDRLEN) {
			const struct nlattr *g = (const void *)at, *in[CTRL_ATTR_MCAST_GRP_MAX + 1];
			size_t step = NLA_ALIGN(g->nla_len);
			uint32_t *to;

			gnl_parse(gnl_data(g), gnl_len(g), CTRL_ATTR_MCAST_GRP_MAX, in);
			to = !strcmp(gnl_data(in[CTRL_ATTR_MCAST_GRP_NAME]), RDT_SB_GROUP_POWER) ? power : events;
			if (to)
				*to = gnl_num(in[CTRL_ATTR_MCAST_GRP_ID]);
			at += step;
			left = step < left ? left - step : 0;
		}
	}
	return gnl_num(a[CTRL_ATTR_FAMILY_ID]);
}

void gnl_join(int fd, uint32_t group)
{
	if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		tap_bail("multicast group %u", group);
}
