/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Generic netlink by hand: a test must be able to say things that a library would not.
 * Errors of set-up end the program.
 */
#ifndef GNL_H
#define GNL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/redoubt_standby.h>

#define GNL_MAX		(96 * 1024)

/* A request under construction. */
struct gnl_msg {
	struct nlmsghdr nlh;
	struct genlmsghdr genl;
	char attrs[GNL_MAX];
};

int gnl_socket(uint32_t *portid);		/* bound; CLOEXEC */
void gnl_bufsize(int fd, int bytes);
/* Of the standby's family; 0: there is none. */
uint16_t gnl_family(int fd, uint32_t *events, uint32_t *power);
void gnl_join(int fd, uint32_t group);

void gnl_begin(struct gnl_msg *m, uint16_t family, uint8_t cmd);
void gnl_put(struct gnl_msg *m, uint16_t attr, const void *data, size_t bytes);
static inline void gnl_u32(struct gnl_msg *m, uint16_t attr, uint32_t v) { gnl_put(m, attr, &v, 4); }
static inline void gnl_u8(struct gnl_msg *m, uint16_t attr, uint8_t v) { gnl_put(m, attr, &v, 1); }
static inline void gnl_u64(struct gnl_msg *m, uint16_t attr, uint64_t v) { gnl_put(m, attr, &v, 8); }

/*
 * Send, and wait for the answer. The errno it says, 0 for none; *@reply, if wanted, is a buffer of GNL_MAX bytes for the
 * message that came before that (its nlmsg_len is 0 if none did).
 */
int gnl_call(int fd, struct gnl_msg *m, struct nlmsghdr *reply);
/* A dump; each message to @each. The errno. */
int gnl_dump(int fd, struct gnl_msg *m, void (*each)(const struct nlmsghdr *nlh, void *arg), void *arg);
/* One message that comes by itself; its bytes, 0: none for @ms milliseconds, -1: an error. */
int gnl_recv(int fd, void *buf, size_t size, int ms);

/* Attributes. Those of a type by index, the first if there are several. */
struct gnl_attrs {
	const struct nlattr *a[RDT_SB_A_MAX + 1];
};
void gnl_parse(const void *data, size_t bytes, unsigned int max, const struct nlattr **out);
void gnl_attrs(const struct nlmsghdr *nlh, struct gnl_attrs *out);
static inline uint8_t gnl_cmd(const struct nlmsghdr *nlh)
{
	return ((const struct genlmsghdr *)NLMSG_DATA(nlh))->cmd;
}
/* The next attribute of @type behind @prev (NULL: from the start). */
const struct nlattr *gnl_next(const struct nlmsghdr *nlh, uint16_t type, const struct nlattr *prev);
static inline const void *gnl_data(const struct nlattr *a) { return (const char *)a + NLA_HDRLEN; }
static inline size_t gnl_len(const struct nlattr *a) { return a->nla_len - NLA_HDRLEN; }
uint64_t gnl_num(const struct nlattr *a);		/* by its length; 0 for NULL */

#endif
