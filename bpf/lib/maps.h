/* Every map: who writes it, who reads it, what a miss means. All are pinned with
 * their instance and shared by its programs: with those of other layouts, too, where
 * it says "of all layouts". */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

#define MAX_PODS 4096
/* Connections between their SYN and their establishment. A pod may have a part
 * of each table only, so that it cannot take the others' room. */
#define MAX_PENDING 262144
#define MAX_PENDING_OF_POD 8192

/* The node's enrolled pods. Written by user space; a miss in connect means that
 * the socket is not ours. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct pod);
	__uint(max_entries, MAX_PODS);
} pods SEC(".maps");

/* Device index on the node's side of a pod's veth -> the pod's cookie. Written
 * by user space; read by the guard, which drops on a miss. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct veth);
	__uint(max_entries, MAX_PODS);
} guarded SEC(".maps");

/* Pod's cookie -> its counters. Made and deleted by user space with the pod,
 * written by all programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct pod_counters);
	__uint(max_entries, MAX_PODS);
} counters SEC(".maps");

/* Of all layouts. Pod's cookie -> how many of its connections are in flows and
 * origins. Made and deleted by user space with the pod, written by sockops, read by
 * connect, which refuses on a miss. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct under_way);
	__uint(max_entries, MAX_PODS);
} pending SEC(".maps");

/* Of all layouts. The node's enrolled pods for the agent that comes next, which fills
 * its own maps from it. Written and read by user space alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct roster_entry);
	__uint(max_entries, MAX_PODS);
} roster SEC(".maps");

/* Of all layouts. Connections announced before their SYN: the agent's dials, probes, and those
 * of a pod that is not captured yet. Written and deleted by sockops; read by
 * guard and sk_lookup, to whom a miss is an unknown SYN. Not an LRU: that would
 * let one pod push out another's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct announced);
	__uint(max_entries, MAX_PENDING);
} flows SEC(".maps");

/* Of all layouts. Captured connections -> where they meant to go, from their SYN until the
 * agent's end is established; then that end's storage has it (accepted). Written
 * and deleted by sockops; read by sk_lookup, to whom a miss is nobody's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct origin);
	__uint(max_entries, MAX_PENDING);
} origins SEC(".maps");

/* Pod's cookie -> the agent's plaintext listener in the pod. A closed listener
 * leaves by itself; a miss drops: no agent, no traffic. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__type(key, struct listener_key);
	__type(value, __u64);
	__uint(max_entries, MAX_PODS);
} listeners SEC(".maps");

/* Of all layouts. Storage of captured sockets: for the names of their ends, and for sockops. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct origin);
} origin_of SEC(".maps");

/* Of all layouts. Storage of the agent's ends of captured connections: where they meant to go.
 * Written by sockops, read by user space through a file descriptor. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct origin);
} accepted SEC(".maps");

/* Of all layouts. Storage of the agent's own sockets. Only user space of this instance writes it,
 * through a file descriptor: a pod cannot forge it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct agent_tag);
} agent_sockets SEC(".maps");

/* Of all layouts. Storage of the kubelet's probes, from connect to sockops. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct probe_tag);
} probe_sockets SEC(".maps");

/* Of all layouts. The kubelet's cgroup, at 0. Written by user space; empty: no probes are known. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} kubelet SEC(".maps");
