/* Every structure shared with Go. Explicit padding; the Go types are generated
 * from these.
 *
 * What a connection has in the kernel, and the roster, keep their layout for ever:
 * connections outlive programs, and any version has to know the pods of any other
 * (struct flow, announced, origin, under_way, agent_tag, probe_tag, roster_entry).
 * The others may change, with the name of the layout (pkg/redirect). */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

/* Tests upgrade to a version that has another layout, and back: its structures
 * that may change are shifted. */
#ifdef FAIRLEAD_NEXT_LAYOUT
#define SHIFTED __u64 shifted[2];
#else
#define SHIFTED
#endif

/* An address, IPv4 as ::ffff:a.b.c.d. Network order. */
struct addr {
	__u32 w[4];
};

/* A pod of this node. Key: its network namespace's cookie. */
struct pod {
	SHIFTED
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
	SHIFTED
	__u64 cookie;
	__s32 nsid; /* of the pod's namespace, as the node's knows it; < 0: unknown */
	__u32 pad;
};

#define COUNTERS 48 /* room for verdicts; see lib/verdict.h */

/* What became of a pod's connections and packets, by verdict: those worth telling
 * of one pod. */
struct pod_counters {
	SHIFTED
	__u64 verdicts[COUNTERS];
};

/* How many of a pod's connections are in the tables. */
struct under_way {
	__s32 connections;
	__u32 pad;
};

/* A pod as every version knows it. Key: its network namespace's cookie. */
struct roster_entry {
	struct addr ip4;
	struct addr ip6;
	__u32 flags;  /* POD_TCP_ONLY, POD_CAPTURED */
	__u32 device; /* the node's side of its veth; 0: none yet */
	__s32 nsid;   /* see struct veth */
	__u32 pad;
	__u64 reserved[4];
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
	SHIFTED
	__u64 cookie;
};
