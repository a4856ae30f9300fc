/* SPDX-License-Identifier: GPL-2.0 */
#ifndef REDOUBT_AGENT_H
#define REDOUBT_AGENT_H

/* Serves at a socket that must not be there yet. Returns only when it cannot: -1, errno. */
int agent(int fd, const char *path);

#endif
