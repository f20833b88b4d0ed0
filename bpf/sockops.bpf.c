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

static __always_inline int announce(struct bpf_sock_ops *ops, __u64 cookie)
{
	struct announced v = {};
	struct flow f;

	tuple(ops, &f, cookie);
	v.at = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&flows, &f, &v, BPF_ANY))
		return count(DROP_FULL, 1);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	return count(ANNOUNCED, 1);
}

static __always_inline int connecting(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	__u64 cookie = bpf_get_netns_cookie(ops);
	struct origin *o;
	struct flow f;

	if (!sk)
		return 1;
	if (node_cookie && cookie == node_cookie) {
		if (bpf_sk_storage_get(&probe_sockets, sk, 0, 0))
			return announce(ops, 0);
		return 1;
	}
	if (!bpf_map_lookup_elem(&pods, &cookie))
		return 1;
	if (bpf_sk_storage_get(&agent_sockets, sk, 0, 0))
		return announce(ops, cookie);
	o = bpf_sk_storage_get(&origin_of, sk, 0, 0);
	if (!o)
		return 1;
	tuple(ops, &f, cookie);
	if (bpf_map_update_elem(&origins, &f, o, BPF_ANY))
		return count(DROP_FULL, 1);
	return count(RECORDED, 1);
}

SEC("sockops")
int record(struct bpf_sock_ops *ops)
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
		bpf_map_delete_elem(&flows, &f);
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
			bpf_map_delete_elem(&flows, &f);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] != TCP_CLOSE)
			return 1;
		cookie = bpf_get_netns_cookie(ops);
		if (node_cookie && cookie == node_cookie)
			cookie = 0;
		tuple(ops, &f, cookie);
		bpf_map_delete_elem(&flows, &f);
		return 1;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
