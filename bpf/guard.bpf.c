/* The guard on the node's side of a pod's veth: what leaves the pod must come
 * from its own address, a SYN must have been announced, and any other segment
 * must be of a connection that the pod has. What got around connect() ends here.
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
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define AUTHENTICATION 51
#define DESTINATION 60
#define TCP_LISTEN 10
/* Types of ICMPv6 (RFC 2710, 3810, 4861). */
#define LISTENER_REPORT 131
#define LISTENER_DONE 132
#define ROUTER_SOLICITATION 133
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define LISTENER_REPORT_V2 143
/* Also the results of clsact: pass on, and drop. */
#define NEXT -1
#define DROP 2

/* What a packet is judged by. */
struct packet {
	struct flow flow;
	const struct pod *pod;
	__s32 nsid;
	__u32 pad;
};

/* has_socket asks the pod's namespace for the connection that a segment is of. */
static __always_inline int has_socket(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size, state;

	/* As an answer to the segment would look it up. */
	if (addr_is_v4(&p->flow.src)) {
		t.ipv4.saddr = p->flow.dst.w[3];
		t.ipv4.daddr = p->flow.src.w[3];
		t.ipv4.sport = bpf_htons(p->flow.dport);
		t.ipv4.dport = bpf_htons(p->flow.sport);
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, p->flow.dst.w, sizeof(t.ipv6.saddr));
		__builtin_memcpy(t.ipv6.daddr, p->flow.src.w, sizeof(t.ipv6.daddr));
		t.ipv6.sport = bpf_htons(p->flow.dport);
		t.ipv6.dport = bpf_htons(p->flow.sport);
		size = sizeof(t.ipv6);
	}
	sk = bpf_skc_lookup_tcp(skb, &t, size, p->nsid, 0);
	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	return state != TCP_LISTEN;
}

static __always_inline int tcp(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	__u64 cookie = p->flow.cookie;
	struct tcphdr t;

	if (bpf_skb_load_bytes(skb, offset, &t, sizeof(t)) || t.doff < 5)
		return count_of(cookie, DROP_MALFORMED, DROP);
	p->flow.sport = bpf_ntohs(t.source);
	p->flow.dport = bpf_ntohs(t.dest);
	if (t.syn && !t.ack) {
		if (bpf_map_lookup_elem(&flows, &p->flow))
			return count(GUARD_PASS_ANNOUNCED, NEXT);
		return count_of(cookie, DROP_SYN, DROP);
	}
	/* Without a socket the kernel itself sends resets, and SYN-ACKs with a
	 * cookie: they carry nothing. */
	if ((t.rst || t.syn) && offset + t.doff * 4 >= skb->len)
		return count(GUARD_PASS, NEXT);
	if (p->nsid < 0 || has_socket(skb, p))
		return count(GUARD_PASS, NEXT);
	return count_of(cookie, DROP_STRAY, DROP);
}

/* other judges what is not TCP, which the tunnel does not carry. */
static __always_inline int other(const struct packet *p, __u8 protocol)
{
	__u64 cookie = p->flow.cookie;

	if (p->pod->flags & POD_TCP_ONLY)
		return count_of(cookie, protocol == IPPROTO_UDP ? DROP_UDP : DROP_OTHER, DROP);
	return count_of(cookie, protocol == IPPROTO_UDP ? GUARD_PASS_UDP : GUARD_PASS_OTHER, NEXT);
}

static __always_inline int ipv4(struct __sk_buff *skb, struct packet *p)
{
	__u64 cookie = p->flow.cookie;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl < 5)
		return count_of(cookie, DROP_MALFORMED, DROP);
	addr_v4(&p->flow.src, ip.saddr);
	addr_v4(&p->flow.dst, ip.daddr);
	if (!pod_has(p->pod, &p->flow.src))
		return count_of(cookie, DROP_SPOOFED, DROP);
	if (addr_is_loopback(&p->flow.dst))
		return count_of(cookie, DROP_LOOPBACK, DROP);
	if (ip.protocol != IPPROTO_TCP)
		return other(p, ip.protocol);
	/* A fragment hides its TCP header, or part of it. */
	if (ip.frag_off & bpf_htons(0x3fff))
		return count_of(cookie, DROP_MALFORMED, DROP);
	return tcp(skb, p, ETH_HLEN + ip.ihl * 4);
}

/* hides says whether a header after this one could be TCP's. */
static __always_inline int hides(__u8 next)
{
	return next == HOP_BY_HOP || next == ROUTING || next == FRAGMENT || next == AUTHENTICATION || next == DESTINATION;
}

/* icmp6 lets pass what IPv6 does not work without, even where TCP alone may: neighbour
 * discovery as a host does it, and multicast listeners. They are never fragments
 * (RFC 6980); of what is, offset is 0. */
static __always_inline int icmp6(struct __sk_buff *skb, const struct packet *p, __u32 offset)
{
	__u8 type = 0;

	if (offset && bpf_skb_load_bytes(skb, offset, &type, 1))
		return count_of(p->flow.cookie, DROP_MALFORMED, DROP);
	switch (type) {
	case LISTENER_REPORT:
	case LISTENER_DONE:
	case ROUTER_SOLICITATION:
	case NEIGHBOUR_SOLICITATION:
	case NEIGHBOUR_ADVERTISEMENT:
	case LISTENER_REPORT_V2:
		return count(GUARD_PASS_OTHER, NEXT);
	}
	return other(p, IPPROTO_ICMPV6);
}

static __always_inline int ipv6(struct __sk_buff *skb, struct packet *p)
{
	__u64 cookie = p->flow.cookie;
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	struct {
		__u8 next, length;
	} extension = {};
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return count_of(cookie, DROP_MALFORMED, DROP);
	addr_v6(&p->flow.src, ip.saddr.in6_u.u6_addr32[0], ip.saddr.in6_u.u6_addr32[1], ip.saddr.in6_u.u6_addr32[2], ip.saddr.in6_u.u6_addr32[3]);
	addr_v6(&p->flow.dst, ip.daddr.in6_u.u6_addr32[0], ip.daddr.in6_u.u6_addr32[1], ip.daddr.in6_u.u6_addr32[2], ip.daddr.in6_u.u6_addr32[3]);
	next = ip.nexthdr;
	/* Multicast listener reports have a hop-by-hop header and large datagrams a
	 * fragment header; a TCP of the kernel has neither. */
	if (next == HOP_BY_HOP || next == FRAGMENT) {
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)) || extension.next == IPPROTO_TCP)
			return count_of(cookie, DROP_MALFORMED, DROP);
		offset = next == FRAGMENT ? 0 : offset + 8 + extension.length * 8;
		next = extension.next;
	}
	/* Neighbour discovery is from link-local addresses and from none. */
	if (next == IPPROTO_ICMPV6 && (addr_is_zero(&p->flow.src) || addr_is_link_local_v6(&p->flow.src)))
		return icmp6(skb, p, offset);
	if (!pod_has(p->pod, &p->flow.src))
		return count_of(cookie, DROP_SPOOFED, DROP);
	if (addr_is_loopback(&p->flow.dst) || addr_is_spread_v6(&p->flow.dst))
		return count_of(cookie, DROP_LOOPBACK, DROP);
	if (hides(next))
		return count_of(cookie, DROP_MALFORMED, DROP);
	if (next == IPPROTO_ICMPV6)
		return icmp6(skb, p, offset);
	if (next != IPPROTO_TCP)
		return other(p, next);
	return tcp(skb, p, offset);
}

SEC("tc")
int fl_guard(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct packet p = {};
	struct veth *g = bpf_map_lookup_elem(&guarded, &device);

	if (!g)
		return count(DROP_SYN, DROP);
	p.flow.cookie = g->cookie;
	p.nsid = g->nsid;
	p.pod = bpf_map_lookup_elem(&pods, &p.flow.cookie);
	if (!p.pod)
		return count(DROP_SYN, DROP);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ipv4(skb, &p);
	case bpf_htons(ETH_P_IPV6):
		return ipv6(skb, &p);
	case bpf_htons(ETH_P_ARP):
		return count(GUARD_PASS_OTHER, NEXT);
	}
	return count_of(p.flow.cookie, DROP_MALFORMED, DROP);
}

char _license[] SEC("license") = "Dual BSD/GPL";
