/* The guard on the node's side of a pod's veth: what leaves the pod must come
 * from its own address, and a SYN must have been announced. What got around
 * connect() ends here.
 * SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "lib/addr.h"
#include "lib/config.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define IPPROTO_TCP 6
#define IPPROTO_ICMPV6 58
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define DESTINATION 60
/* Also the results of clsact: pass on, and drop. */
#define NEXT -1
#define DROP 2

static __always_inline int tcp(struct __sk_buff *skb, struct flow *f, __u32 offset)
{
	struct tcphdr t;

	if (bpf_skb_load_bytes(skb, offset, &t, sizeof(t)))
		return count(DROP_MALFORMED, DROP);
	if (!t.syn || t.ack)
		return count(GUARD_PASS, NEXT);
	f->sport = bpf_ntohs(t.source);
	f->dport = bpf_ntohs(t.dest);
	if (bpf_map_lookup_elem(&flows, f))
		return count(GUARD_PASS_ANNOUNCED, NEXT);
	return count(DROP_SYN, DROP);
}

static __always_inline int other(const struct pod *pod)
{
	if (pod->flags & POD_TCP_ONLY)
		return count(DROP_OTHER, DROP);
	return count(GUARD_PASS_OTHER, NEXT);
}

static __always_inline int ipv4(struct __sk_buff *skb, const struct pod *pod, struct flow *f)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl < 5)
		return count(DROP_MALFORMED, DROP);
	addr_v4(&f->src, ip.saddr);
	addr_v4(&f->dst, ip.daddr);
	if (!pod_has(pod, &f->src))
		return count(DROP_SPOOFED, DROP);
	if (addr_is_loopback(&f->dst))
		return count(DROP_LOOPBACK, DROP);
	if (ip.protocol != IPPROTO_TCP)
		return other(pod);
	/* A fragment hides its TCP header, or part of it. */
	if (ip.frag_off & bpf_htons(0x3fff))
		return count(DROP_MALFORMED, DROP);
	return tcp(skb, f, ETH_HLEN + ip.ihl * 4);
}

static __always_inline int ipv6(struct __sk_buff *skb, const struct pod *pod, struct flow *f)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return count(DROP_MALFORMED, DROP);
	addr_v6(&f->src, ip.saddr.in6_u.u6_addr32[0], ip.saddr.in6_u.u6_addr32[1], ip.saddr.in6_u.u6_addr32[2], ip.saddr.in6_u.u6_addr32[3]);
	addr_v6(&f->dst, ip.daddr.in6_u.u6_addr32[0], ip.daddr.in6_u.u6_addr32[1], ip.daddr.in6_u.u6_addr32[2], ip.daddr.in6_u.u6_addr32[3]);
	next = ip.nexthdr;
	if (next == HOP_BY_HOP) {
		/* Multicast listener reports have one; TCP has none. */
		if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &next, 1) || next != IPPROTO_ICMPV6)
			return count(DROP_MALFORMED, DROP);
	}
	/* Neighbour discovery is from link-local addresses and from none. */
	if (next == IPPROTO_ICMPV6 && (addr_is_zero(&f->src) || addr_is_link_local_v6(&f->src)))
		return count(GUARD_PASS_OTHER, NEXT);
	if (!pod_has(pod, &f->src))
		return count(DROP_SPOOFED, DROP);
	if (addr_is_loopback(&f->dst) || addr_is_spread_v6(&f->dst))
		return count(DROP_LOOPBACK, DROP);
	if (next == ROUTING || next == FRAGMENT || next == DESTINATION)
		return count(DROP_MALFORMED, DROP);
	if (next != IPPROTO_TCP)
		return next == IPPROTO_ICMPV6 ? count(GUARD_PASS_OTHER, NEXT) : other(pod);
	return tcp(skb, f, ETH_HLEN + sizeof(ip));
}

SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct flow f = {};
	struct pod *pod;
	__u64 *cookie = bpf_map_lookup_elem(&guarded, &device);

	if (!cookie)
		return count(DROP_SYN, DROP);
	f.cookie = *cookie;
	pod = bpf_map_lookup_elem(&pods, &f.cookie);
	if (!pod)
		return count(DROP_SYN, DROP);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ipv4(skb, pod, &f);
	case bpf_htons(ETH_P_IPV6):
		return ipv6(skb, pod, &f);
	case bpf_htons(ETH_P_ARP):
		return count(GUARD_PASS_OTHER, NEXT);
	}
	return count(DROP_MALFORMED, DROP);
}

char _license[] SEC("license") = "Dual BSD/GPL";
