package redirect

import (
	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// verdictNames are those of bpf/lib/verdict.h, by number. A test compares them.
var verdictNames = []struct{ hook, name string }{
	{"connect", "pass_not_ours"}, {"connect", "pass_not_tcp"}, {"connect", "pass_agent"}, {"connect", "pass_loopback"},
	{"connect", "captured"}, {"connect", "deny_link_local"}, {"connect", "deny_no_storage"}, {"connect", "pass_probe"},
	{"sk_lookup", "steered"}, {"sk_lookup", "pass_announced"}, {"sk_lookup", "pass_self"}, {"sk_lookup", "pass_tunnel"},
	{"sk_lookup", "drop_reserved"}, {"sk_lookup", "drop_no_agent"}, {"sk_lookup", "pass_listener"},
	{"guard", "pass"}, {"guard", "pass_announced"}, {"guard", "drop_syn"}, {"guard", "drop_spoofed"},
	{"guard", "drop_loopback"}, {"guard", "drop_malformed"}, {"guard", "drop_other"}, {"guard", "pass_other"},
	{"setsockopt", "deny_rebind"}, {"sock_create", "deny_mptcp"}, {"sockops", "recorded"}, {"sockops", "announced"}, {"sockops", "drop_full"},
	{"connect", "deny_quota"}, {"connect", "deny_device"}, {"connect", "pass_leaving"},
	{"guard", "drop_stray"}, {"guard", "pass_udp"}, {"guard", "drop_udp"}, {"sk_lookup", "deny_stranger"},
}

// Verdict is one counted exit of a program.
type Verdict struct {
	Hook, Name string
	Count      uint64
}

// Verdicts are those of all pods, since the instance's maps were made. A pod's
// carried connections are counted here; see [Pod.Verdicts] for what else befell it.
func (r *Redirector) Verdicts() []Verdict {
	out := make([]Verdict, 0, len(verdictNames))
	for i, v := range verdictNames {
		var perCPU []uint64
		if err := r.connect.Verdicts.Lookup(uint32(i), &perCPU); err != nil {
			continue
		}
		n := uint64(0)
		for _, c := range perCPU {
			n += c
		}
		out = append(out, Verdict{Hook: v.hook, Name: v.name, Count: n})
	}
	return out
}

// Verdicts are the pod's own, since it was first enrolled: refusals and drops,
// and what is not carried, such as UDP. Those that are zero are left out.
func (p *Pod) Verdicts() []Verdict {
	var c bpfobj.ConnectPodCounters
	if p.r.connect.Counters.Lookup(p.cookie, &c) != nil {
		return nil // it is gone
	}
	var out []Verdict
	for i, v := range verdictNames {
		if n := c.Verdicts[i]; n > 0 {
			out = append(out, Verdict{Hook: v.hook, Name: v.name, Count: n})
		}
	}
	return out
}
