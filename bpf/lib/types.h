/* Every structure shared with Go. Explicit padding; the Go types are generated
 * from these. Socket storage (struct origin, struct agent_tag) keeps its layout
 * for ever: sockets outlive programs. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

/* An address, IPv4 as ::ffff:a.b.c.d. Network order. */
struct addr {
	__u32 w[4];
};

/* A pod of this node. Key: its network namespace's cookie. */
struct pod {
	struct addr ip4;    /* all zero: none */
	struct addr ip6;    /* all zero: none */
	__u32 flags;        /* POD_ */
	__u32 identity;     /* reserved for the same-node path */
	__u64 generation;   /* reserved for the same-node path */
};

/* The pod's traffic other than TCP is dropped by the guard. */
#define POD_TCP_ONLY 1
/* Its connections are captured and steered. Without it the pod is on its way in
 * or out: connections go as they would, and are announced to the guard. */
#define POD_CAPTURED 2
/* It is captured since a moment: a connection may be between connect, which did
 * not know the pod yet, and its SYN. Such are announced still. */
#define POD_SETTLING 4

/* The device on the node's side of a pod's veth. */
struct veth {
	__u64 cookie;
	__s32 nsid; /* of the pod's namespace, as the node's knows it; < 0: unknown */
	__u32 pad;
};

#define COUNTERS 48 /* room for verdicts; see lib/verdict.h */

/* What became of a pod's connections and packets, by verdict (those worth
 * telling of one pod), and how many of its connections are in the tables. */
struct pod_counters {
	__u64 verdicts[COUNTERS];
	__s32 pending;
	__u32 pad;
};

/* A connection as its client's side sees it. */
struct flow {
	__u64 cookie; /* the namespace that it was made in; 0 for a probe */
	struct addr src;
	struct addr dst;
	__u16 sport; /* host order, both */
	__u16 dport;
	__u32 pad;
};

/* What is known of a flow that was announced before its SYN left. */
struct announced {
	__u64 at;         /* bpf_ktime_get_ns */
	__u32 identity;   /* reserved for the same-node path */
	__u32 generation; /* reserved for the same-node path */
};

/* Where a captured connection meant to go. Map value, and socket storage of both
 * of its ends. */
struct origin {
	struct addr dst;
	__u16 port; /* host order */
	__u16 pad0;
	__u32 pad1;
	__u64 reserved;
};

/* Socket storage of the agent's own sockets, set from user space. */
struct agent_tag {
	__u32 instance;
	__u32 pad;
};

/* Socket storage of a kubelet's probe. */
struct probe_tag {
	__u64 at;
};

/* Key of the listeners: a pod's cookie. */
struct listener_key {
	__u64 cookie;
};
