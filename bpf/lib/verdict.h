/* Every exit of every program, numbered and counted. Numbers are appended to,
 * never reused: user space exports them by name. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

enum verdict {
	/* connect */
	PASS_NOT_OURS = 0,        /* the socket is of no enrolled pod */
	PASS_NOT_TCP = 1,         /* a pod's socket, not TCP: the guard counts it */
	PASS_AGENT = 2,           /* the agent's own socket */
	PASS_LOOPBACK = 3,        /* to the pod itself */
	CAPTURED = 4,             /* redirected to the agent */
	DENY_LINK_LOCAL = 5,      /* fe80::/10 is not carried */
	DENY_NO_STORAGE = 6,      /* no memory to remember the destination: refused */
	PASS_PROBE = 7,           /* the kubelet's probe */
	/* sk_lookup */
	STEERED = 8,              /* to the agent's plaintext listener */
	PASS_ANNOUNCED = 9,       /* the agent's dial to the application, or a probe */
	PASS_SELF = 10,           /* the pod to itself */
	PASS_TUNNEL = 11,         /* to the HBONE listener */
	DROP_RESERVED = 12,       /* the agent's ports from outside */
	DROP_NO_AGENT = 13,       /* no listener: fail closed */
	PASS_LISTENER = 14,       /* a captured connection to the agent */
	/* guard */
	GUARD_PASS = 15,          /* not a TCP SYN */
	GUARD_PASS_ANNOUNCED = 16,
	DROP_SYN = 17,            /* a SYN that no record accounts for */
	DROP_SPOOFED = 18,        /* not the pod's address */
	DROP_LOOPBACK = 19,       /* a loopback destination on the wire */
	DROP_MALFORMED = 20,      /* too short, or its TCP header hidden */
	DROP_OTHER = 21,          /* not TCP, and the pod is TCP only */
	GUARD_PASS_OTHER = 22,    /* not TCP, allowed */
	/* others */
	DENY_REBIND = 23,         /* a connected socket to another device */
	DENY_MPTCP = 24,          /* further subflows would go around */
	RECORDED = 25,            /* a destination recorded for the agent */
	ANNOUNCED = 26,           /* a flow announced to guard and sk_lookup */
	DROP_FULL = 27,           /* a table was full: refused */
	DENY_QUOTA = 28,          /* too many connections of this pod are under way */
	DENY_DEVICE = 29,         /* bound to a device, and not to be freed of it */
	PASS_LEAVING = 30,        /* the pod is not captured yet, or not any more */
	DROP_STRAY = 31,          /* guard: a segment of no connection of this pod */
	GUARD_PASS_UDP = 32,      /* UDP, allowed */
	DROP_UDP = 33,            /* UDP, and the pod is TCP only */
	DENY_STRANGER = 34,       /* sk_lookup: an inner address from outside */
	VERDICTS = 48,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, VERDICTS);
} verdicts SEC(".maps");

/* For the type alone: its names are exported to Go. */
const enum verdict *verdict_type __attribute__((unused));

static __always_inline int count(enum verdict v, int result)
{
	__u32 key = v;
	__u64 *n = bpf_map_lookup_elem(&verdicts, &key);

	if (n)
		(*n)++;
	return result;
}

/* count_of also counts for the pod. For what is rare or worth it: the pod's
 * counters are shared by all processors. */
static __always_inline int count_of(__u64 cookie, enum verdict v, int result)
{
	struct pod_counters *c = bpf_map_lookup_elem(&counters, &cookie);

	if (c && v < COUNTERS)
		__sync_fetch_and_add(&c->verdicts[v], 1);
	return count(v, result);
}
