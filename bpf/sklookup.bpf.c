/* Inbound: steers connections for one pod to the agent's listener in its
 * namespace. One program per pod; the pod is a constant, never an address alone.
 * SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "lib/addr.h"
#include "lib/config.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define IPPROTO_TCP 6

SEC("sk_lookup")
int fl_steer(struct bpf_sk_lookup *ctx)
{
	struct listener_key key = {};
	struct bpf_sock *sk;
	struct flow f = {};
	struct pod *pod;
	long err;
	/* Volatile, and before any branch: see sockops.bpf.c. */
	volatile struct bpf_sk_lookup *c = ctx;
	__u32 family = c->family, protocol = c->protocol, l4 = c->local_ip4, r4 = c->remote_ip4;
	__u32 l0 = c->local_ip6[0], l1 = c->local_ip6[1], l2 = c->local_ip6[2], l3 = c->local_ip6[3];
	__u32 r0 = c->remote_ip6[0], r1 = c->remote_ip6[1], r2 = c->remote_ip6[2], r3 = c->remote_ip6[3];

	if (protocol != IPPROTO_TCP)
		return SK_PASS;
	f.cookie = pod_cookie;
	f.sport = bpf_ntohs((__u16)c->remote_port);
	f.dport = c->local_port;
	if (family == AF_INET) {
		addr_v4(&f.src, r4);
		addr_v4(&f.dst, l4);
	} else {
		addr_v6(&f.src, r0, r1, r2, r3);
		addr_v6(&f.dst, l0, l1, l2, l3);
	}
	pod = bpf_map_lookup_elem(&pods, &f.cookie);
	if (!pod)
		return count(DROP_NO_AGENT, SK_DROP);
	/* The pod's inner addresses. Captured connections alone come to the agent's
	 * listener. The spread prefix is local on every device of the pod, so a
	 * neighbour could name it: nothing else is to be had there. */
	if (addr_is_loopback(&f.dst) || addr_is_spread_v6(&f.dst)) {
		if (f.dport == PORT_OUTBOUND && bpf_map_lookup_elem(&origins, &f))
			return count(PASS_LISTENER, SK_PASS);
		if (f.dport == PORT_OUTBOUND || f.dport == PORT_INBOUND)
			return count_of(pod_cookie, DROP_RESERVED, SK_DROP);
		if (addr_is_spread_v6(&f.dst) || (!addr_is_loopback(&f.src) && !pod_has(pod, &f.src)))
			return count_of(pod_cookie, DENY_STRANGER, SK_DROP);
		return count(PASS_SELF, SK_PASS);
	}
	if (!(pod->flags & POD_CAPTURED))
		return count(PASS_LEAVING, SK_PASS);
	/* The agent's ports are for captured connections alone. */
	if (f.dport == PORT_OUTBOUND || f.dport == PORT_INBOUND)
		return count_of(pod_cookie, DROP_RESERVED, SK_DROP);
	if (f.dport == PORT_HBONE)
		return count(PASS_TUNNEL, SK_PASS);
	if (pod_has(pod, &f.src))
		return count(PASS_SELF, SK_PASS);
	if (bpf_map_lookup_elem(&flows, &f))
		return count(PASS_ANNOUNCED, SK_PASS);
	f.cookie = 0; /* a probe, announced on the node */
	if (bpf_map_lookup_elem(&flows, &f))
		return count(PASS_ANNOUNCED, SK_PASS);
	key.cookie = pod_cookie;
	sk = bpf_map_lookup_elem(&listeners, &key);
	if (!sk)
		return count_of(pod_cookie, DROP_NO_AGENT, SK_DROP);
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	if (err)
		return count_of(pod_cookie, DROP_NO_AGENT, SK_DROP);
	return count(STEERED, SK_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
