/* Constants that user space sets before a program is loaded. */
#pragma once

#include <linux/types.h>

/* The node's network namespace: probes come from there. */
const volatile __u64 node_cookie = 0;

/* The pod of a sk_lookup program: one program per pod. */
const volatile __u64 pod_cookie = 0;

#define PORT_OUTBOUND 15001
#define PORT_INBOUND 15006
#define PORT_HBONE 15008
