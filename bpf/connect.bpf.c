/* Outbound capture: connect() of an enrolled pod's TCP socket goes to the agent's
 * listener in the pod's own namespace. getpeername and getsockname hide it.
 * SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "lib/addr.h"
#include "lib/config.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define ALLOW 1
#define DENY 0

static __always_inline int probe(struct bpf_sock_addr *ctx)
{
	struct probe_tag tag = {};

	if (bpf_current_task_under_cgroup(&kubelet, 0) != 1)
		return count(PASS_NOT_OURS, ALLOW);
	tag.at = bpf_ktime_get_ns();
	bpf_sk_storage_get(&probe_sockets, ctx->sk, &tag, BPF_SK_STORAGE_GET_F_CREATE);
	return count(PASS_PROBE, ALLOW);
}

/* decide returns ALLOW with *redirect set where the destination is to be rewritten. */
static __always_inline int decide(struct bpf_sock_addr *ctx, const struct addr *dst, int *redirect)
{
	struct bpf_sock *sk = ctx->sk;
	struct under_way *mine;
	struct origin *o;
	struct pod *pod;
	__u64 cookie = bpf_get_netns_cookie(ctx);
	int zero = 0;

	if (!sk)
		return count(PASS_NOT_OURS, ALLOW);
	if (ctx->type != SOCK_STREAM) {
		if (bpf_map_lookup_elem(&pods, &cookie))
			return count(PASS_NOT_TCP, ALLOW);
		return count(PASS_NOT_OURS, ALLOW);
	}
	if (node_cookie && cookie == node_cookie)
		return probe(ctx);
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod)
		return count(PASS_NOT_OURS, ALLOW);
	if (bpf_sk_storage_get(&agent_sockets, sk, 0, 0))
		return count(PASS_AGENT, ALLOW);
	mine = bpf_map_lookup_elem(&pending, &cookie);
	if (!mine || mine->connections >= MAX_PENDING_OF_POD)
		return count_of(cookie, DENY_QUOTA, DENY);
	/* Whatever an earlier connect of this socket left behind is not true any more. */
	bpf_sk_storage_delete(&origin_of, sk);
	if (!(pod->flags & POD_CAPTURED))
		return count(PASS_LEAVING, ALLOW);
	if (addr_is_loopback(dst) || addr_is_spread_v6(dst) || pod_has(pod, dst))
		return count(PASS_LOOPBACK, ALLOW);
	if (!addr_is_v4(dst) && addr_is_link_local_v6(dst))
		return count_of(cookie, DENY_LINK_LOCAL, DENY);
	/* A socket bound to a device would send the rewritten SYN out of it. Kernels
	 * before 5.19 know the other option alone, with an empty name. */
	if (sk->bound_dev_if && bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &zero, sizeof(zero)) &&
	    bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, &zero, sizeof(zero)))
		return count_of(cookie, DENY_DEVICE, DENY);
	o = bpf_sk_storage_get(&origin_of, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o)
		return count_of(cookie, DENY_NO_STORAGE, DENY);
	o->dst = *dst;
	o->port = bpf_ntohs((__u16)ctx->user_port);
	*redirect = 1;
	return count(CAPTURED, ALLOW);
}

/* spread is a host number of the listener's addresses, never 0 or all ones. */
static __always_inline __u32 spread(void)
{
	return (bpf_get_prandom_u32() % (SPREAD_MASK - 1)) + 1;
}

SEC("cgroup/connect4")
int fl_connect4(struct bpf_sock_addr *ctx)
{
	struct addr dst;
	int redirect = 0, result;

	addr_v4(&dst, ctx->user_ip4);
	result = decide(ctx, &dst, &redirect);
	if (redirect) {
		ctx->user_ip4 = SPREAD_V4 | bpf_htonl(spread());
		ctx->user_port = bpf_htons(PORT_OUTBOUND);
	}
	return result;
}

SEC("cgroup/connect6")
int fl_connect6(struct bpf_sock_addr *ctx)
{
	struct addr dst;
	int redirect = 0, result;
	__u32 w0 = ctx->user_ip6[0], w1 = ctx->user_ip6[1], w2 = ctx->user_ip6[2], w3 = ctx->user_ip6[3];

	addr_v6(&dst, w0, w1, w2, w3);
	result = decide(ctx, &dst, &redirect);
	if (!redirect)
		return result;
	if (addr_is_v4(&dst)) { /* an IPv4 connection of an IPv6 socket */
		ctx->user_ip6[3] = SPREAD_V4 | bpf_htonl(spread());
	} else {
		ctx->user_ip6[0] = SPREAD_V6_0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = bpf_htonl(spread());
	}
	ctx->user_port = bpf_htons(PORT_OUTBOUND);
	return result;
}

static __always_inline struct origin *captured(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 0;
	return bpf_sk_storage_get(&origin_of, sk, 0, 0);
}

SEC("cgroup/getpeername4")
int fl_getpeername4(struct bpf_sock_addr *ctx)
{
	struct origin *o = captured(ctx);

	if (o && ctx->user_port == bpf_htons(PORT_OUTBOUND)) {
		ctx->user_ip4 = o->dst.w[3];
		ctx->user_port = bpf_htons(o->port);
	}
	return ALLOW;
}

SEC("cgroup/getpeername6")
int fl_getpeername6(struct bpf_sock_addr *ctx)
{
	struct origin *o = captured(ctx);

	if (o && ctx->user_port == bpf_htons(PORT_OUTBOUND)) {
		ctx->user_ip6[0] = o->dst.w[0];
		ctx->user_ip6[1] = o->dst.w[1];
		ctx->user_ip6[2] = o->dst.w[2];
		ctx->user_ip6[3] = o->dst.w[3];
		ctx->user_port = bpf_htons(o->port);
	}
	return ALLOW;
}

SEC("cgroup/getsockname4")
int fl_getsockname4(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct pod *pod;
	struct addr a;

	if (!captured(ctx))
		return ALLOW;
	pod = bpf_map_lookup_elem(&pods, &cookie);
	addr_v4(&a, ctx->user_ip4);
	if (pod && addr_is_loopback(&a) && !addr_is_zero(&pod->ip4))
		ctx->user_ip4 = pod->ip4.w[3];
	return ALLOW;
}

SEC("cgroup/getsockname6")
int fl_getsockname6(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	__u32 w0 = ctx->user_ip6[0], w1 = ctx->user_ip6[1], w2 = ctx->user_ip6[2], w3 = ctx->user_ip6[3];
	struct pod *pod;
	struct addr a;

	if (!captured(ctx))
		return ALLOW;
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod)
		return ALLOW;
	addr_v6(&a, w0, w1, w2, w3);
	if (addr_is_v4(&a)) {
		if (addr_is_loopback(&a) && !addr_is_zero(&pod->ip4))
			ctx->user_ip6[3] = pod->ip4.w[3];
	} else if ((addr_is_loopback(&a) || addr_is_spread_v6(&a)) && !addr_is_zero(&pod->ip6)) {
		ctx->user_ip6[0] = pod->ip6.w[0];
		ctx->user_ip6[1] = pod->ip6.w[1];
		ctx->user_ip6[2] = pod->ip6.w[2];
		ctx->user_ip6[3] = pod->ip6.w[3];
	}
	return ALLOW;
}

char _license[] SEC("license") = "Dual BSD/GPL";
