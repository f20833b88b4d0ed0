/* One form of address for both families, and what is asked of it. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include "types.h"

#define AF_INET 2
#define AF_INET6 10
#define V4_MAPPED bpf_htonl(0xffff)

/* The agent's listener is spread over these, so that one pod is not held to one
 * local port per connection: 127.0.0.0/20 and fd53:666c::/116. */
#define SPREAD_V4 bpf_htonl(0x7f000000)
#define SPREAD_MASK 0xfff
#define SPREAD_V6_0 bpf_htonl(0xfd53666c)

static __always_inline void addr_v4(struct addr *a, __u32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = V4_MAPPED;
	a->w[3] = v4;
}

static __always_inline void addr_v6(struct addr *a, __u32 w0, __u32 w1, __u32 w2, __u32 w3)
{
	a->w[0] = w0;
	a->w[1] = w1;
	a->w[2] = w2;
	a->w[3] = w3;
}

static __always_inline int addr_is_v4(const struct addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == V4_MAPPED;
}

static __always_inline int addr_equal(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline int addr_is_zero(const struct addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && a->w[3] == 0;
}

/* 127.0.0.0/8, ::1, 0.0.0.0 and :: (the kernel takes those for loopback). */
static __always_inline int addr_is_loopback(const struct addr *a)
{
	if (addr_is_v4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || a->w[3] == 0;
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && (a->w[3] == bpf_htonl(1) || a->w[3] == 0);
}

/* The prefix that is local to a pod, for the spread of the listener. */
static __always_inline int addr_is_spread_v6(const struct addr *a)
{
	return a->w[0] == SPREAD_V6_0;
}

static __always_inline int addr_is_link_local_v6(const struct addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline int pod_has(const struct pod *p, const struct addr *a)
{
	if (addr_is_v4(a))
		return addr_equal(&p->ip4, a);
	return !addr_is_zero(a) && addr_equal(&p->ip6, a);
}
