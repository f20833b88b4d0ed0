/* Records, before a SYN leaves, where a captured connection meant to go, and
 * announces the agent's own connections and probes to guard and sk_lookup.
 * SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "lib/addr.h"
#include "lib/config.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define TCP_CLOSE 7
#define EEXIST 17

/* The connection as this socket sees it: src is the local end. The context is read
 * through a volatile pointer and before any branch: else the compiler merges the
 * loads of two branches into one at a computed offset, which the verifier refuses. */
static __always_inline void tuple(struct bpf_sock_ops *ops, struct flow *f, __u64 cookie)
{
	volatile struct bpf_sock_ops *ctx = ops;
	__u32 l4 = ctx->local_ip4, r4 = ctx->remote_ip4;
	__u32 l0 = ctx->local_ip6[0], l1 = ctx->local_ip6[1], l2 = ctx->local_ip6[2], l3 = ctx->local_ip6[3];
	__u32 r0 = ctx->remote_ip6[0], r1 = ctx->remote_ip6[1], r2 = ctx->remote_ip6[2], r3 = ctx->remote_ip6[3];
	__u32 family = ctx->family;

	f->cookie = cookie;
	f->pad = 0;
	f->sport = ctx->local_port;
	f->dport = bpf_ntohl(ctx->remote_port);
	if (family == AF_INET) {
		addr_v4(&f->src, l4);
		addr_v4(&f->dst, r4);
		return;
	}
	/* Also for IPv4 on an IPv6 socket: these hold the mapped form then. */
	addr_v6(&f->src, l0, l1, l2, l3);
	addr_v6(&f->dst, r0, r1, r2, r3);
}

static __always_inline void swap(struct flow *f)
{
	struct addr a = f->src;
	__u16 port = f->sport;

	f->src = f->dst;
	f->dst = a;
	f->sport = f->dport;
	f->dport = port;
}

/* put and drop keep the pod's count of what it has in the tables. */
static __always_inline long put(void *map, const struct flow *f, const void *value, __u64 owner)
{
	struct under_way *c = bpf_map_lookup_elem(&pending, &owner);
	long err = bpf_map_update_elem(map, f, value, BPF_NOEXIST);

	if (err == -EEXIST)
		return bpf_map_update_elem(map, f, value, BPF_EXIST);
	if (!err && c)
		__sync_fetch_and_add(&c->connections, 1);
	return err;
}

static __always_inline void drop(void *map, const struct flow *f, __u64 owner)
{
	struct under_way *c;

	if (bpf_map_delete_elem(map, f))
		return;
	c = bpf_map_lookup_elem(&pending, &owner);
	if (c)
		__sync_fetch_and_sub(&c->connections, 1);
}

/* watch has the record deleted when the socket closes, whatever it came to. */
static __always_inline void watch(struct bpf_sock_ops *ops)
{
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline int announce(struct bpf_sock_ops *ops, __u64 cookie)
{
	struct announced v = {};
	struct flow f;

	tuple(ops, &f, cookie);
	v.at = bpf_ktime_get_ns();
	if (put(&flows, &f, &v, cookie))
		return count_of(cookie, DROP_FULL, 1);
	watch(ops);
	return count(ANNOUNCED, 1);
}

static __always_inline int connecting(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	__u64 cookie = bpf_get_netns_cookie(ops);
	struct origin *o;
	struct pod *pod;
	struct flow f;

	if (!sk)
		return 1;
	if (node_cookie && cookie == node_cookie) {
		if (bpf_sk_storage_get(&probe_sockets, sk, 0, 0))
			return announce(ops, 0);
		return 1;
	}
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod)
		return 1;
	if (bpf_sk_storage_get(&agent_sockets, sk, 0, 0))
		return announce(ops, cookie);
	o = bpf_sk_storage_get(&origin_of, sk, 0, 0);
	if (!o) { /* to itself; or anywhere, while the pod comes or goes */
		if ((pod->flags & (POD_CAPTURED | POD_SETTLING)) == POD_CAPTURED)
			return 1;
		return announce(ops, cookie);
	}
	tuple(ops, &f, cookie);
	if (put(&origins, &f, o, cookie))
		return count_of(cookie, DROP_FULL, 1);
	watch(ops);
	return count(RECORDED, 1);
}

/* accepting hands the destination over to the agent's end, before accept can
 * return it: the kernel holds that socket until this is done. */
static __always_inline int accepting(struct bpf_sock_ops *ops, const struct flow *f)
{
	struct origin *to, *o = bpf_map_lookup_elem(&origins, f);
	struct bpf_sock *sk = ops->sk;

	if (!o || !sk)
		return 1;
	to = bpf_sk_storage_get(&accepted, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (to)
		*to = *o;
	drop(&origins, f, f->cookie);
	return to ? 1 : count_of(f->cookie, DROP_FULL, 1);
}

SEC("sockops")
int fl_record(struct bpf_sock_ops *ops)
{
	__u64 cookie;
	struct flow f;
	struct pod *pod;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		return connecting(ops);
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		/* The announced connection has arrived: a later SYN of the same
		 * tuple is another one. */
		cookie = bpf_get_netns_cookie(ops);
		if (!bpf_map_lookup_elem(&pods, &cookie))
			return 1;
		tuple(ops, &f, cookie);
		swap(&f);
		if (f.dport == PORT_OUTBOUND)
			return accepting(ops, &f);
		drop(&flows, &f, cookie);
		f.cookie = 0;
		bpf_map_delete_elem(&flows, &f);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		/* A dial out of the pod needs its record no more; one to the pod's own
		 * application does until the other end is established. */
		cookie = bpf_get_netns_cookie(ops);
		pod = bpf_map_lookup_elem(&pods, &cookie);
		if (!pod)
			return 1;
		tuple(ops, &f, cookie);
		if (!pod_has(pod, &f.dst))
			drop(&flows, &f, cookie);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] != TCP_CLOSE)
			return 1;
		cookie = bpf_get_netns_cookie(ops);
		if (node_cookie && cookie == node_cookie)
			cookie = 0;
		tuple(ops, &f, cookie);
		if (f.dport == PORT_OUTBOUND)
			drop(&origins, &f, cookie);
		drop(&flows, &f, cookie);
		return 1;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
