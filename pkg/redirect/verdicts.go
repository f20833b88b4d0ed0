package redirect

// verdictNames are those of bpf/lib/verdict.h, by number. A test compares them.
var verdictNames = []struct{ hook, name string }{
	{"connect", "pass_not_ours"}, {"connect", "pass_not_tcp"}, {"connect", "pass_agent"}, {"connect", "pass_loopback"},
	{"connect", "captured"}, {"connect", "deny_link_local"}, {"connect", "deny_no_storage"}, {"connect", "pass_probe"},
	{"sk_lookup", "steered"}, {"sk_lookup", "pass_announced"}, {"sk_lookup", "pass_self"}, {"sk_lookup", "pass_tunnel"},
	{"sk_lookup", "drop_reserved"}, {"sk_lookup", "drop_no_agent"}, {"sk_lookup", "pass_listener"},
	{"guard", "pass"}, {"guard", "pass_announced"}, {"guard", "drop_syn"}, {"guard", "drop_spoofed"},
	{"guard", "drop_loopback"}, {"guard", "drop_malformed"}, {"guard", "drop_other"}, {"guard", "pass_other"},
	{"setsockopt", "deny_rebind"}, {"sock_create", "deny_mptcp"}, {"sockops", "recorded"}, {"sockops", "announced"}, {"sockops", "drop_full"},
}
