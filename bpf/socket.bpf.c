/* What a captured pod's sockets may not do: move a connection to another device,
 * and speak MPTCP, whose further subflows would go around the capture.
 * SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/addr.h"
#include "lib/config.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define TCP_CLOSE 7
#define ALLOW 1
#define DENY 0

SEC("cgroup/setsockopt")
int fl_setsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 cookie;

	if (ctx->level != SOL_SOCKET || (ctx->optname != SO_BINDTODEVICE && ctx->optname != SO_BINDTOIFINDEX)) {
		/* The kernel copies options only up to a page: say that we leave
		 * them alone. */
		if (ctx->optlen > 4096)
			ctx->optlen = 0;
		return ALLOW;
	}
	cookie = bpf_get_netns_cookie(ctx);
	if (!sk || sk->protocol != IPPROTO_TCP || !bpf_map_lookup_elem(&pods, &cookie))
		return ALLOW;
	if (sk->state == TCP_CLOSE || !bpf_sk_storage_get(&origin_of, sk, 0, 0))
		return ALLOW; /* before connect, which takes it back; or not captured */
	return count_of(cookie, DENY_REBIND, DENY);
}

SEC("cgroup/sock_create")
int fl_sock_create(struct bpf_sock *ctx)
{
	__u64 cookie;

	if (ctx->protocol != IPPROTO_MPTCP)
		return ALLOW;
	cookie = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&pods, &cookie))
		return ALLOW;
	return count_of(cookie, DENY_MPTCP, DENY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
