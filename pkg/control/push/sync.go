package push

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Sync is one client as /debug/syncz shows it.
type Sync struct {
	Node    string `json:"node"`
	Pod     string `json:"pod"`
	Account string `json:"account"`
	// Cluster, Version and Build are as the client says: the cluster's name, the release
	// of Istio whose forms it takes, and of our own, the version that it is.
	Cluster string `json:"cluster,omitempty"`
	Version string `json:"version,omitempty"`
	Build   string `json:"build,omitempty"`
	// Waypoint is the Gateway whose configuration the client gets, as
	// "namespace/name"; empty for a node agent.
	Waypoint string `json:"waypoint,omitempty"`
	// Gone says that the Gateway is not there any more: what the client has stays.
	Gone      bool      `json:"gone,omitempty"`
	From      string    `json:"from"`
	Connected time.Time `json:"connected"`
	// Types is by "policies", "addresses", "clusters", "endpoints", "listeners" and
	// "routes".
	Types map[string]TypeSync `json:"types"`
}

// TypeSync is one client's state of one type.
type TypeSync struct {
	// Behind is how many changes, of any type, were published since what the
	// client acknowledged: zero is in sync.
	Behind uint64 `json:"behind"`
	// Waiting are the nonces without an answer, Since when the oldest was sent.
	Waiting []string  `json:"waiting,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Acked is the last nonce that was answered, when, and the change it brought
	// the client to.
	Acked   string    `json:"acked,omitempty"`
	AckedAt time.Time `json:"ackedAt,omitzero"`
	UpTo    uint64    `json:"upTo"`
	// Refused are the resources that the client refused and has not taken since,
	// at most a hundred of them; Nack is why, Retry when they are sent again.
	Refused []string  `json:"refused,omitempty"`
	Nack    string    `json:"nack,omitempty"`
	Retry   time.Time `json:"retry,omitzero"`
}

// maxShown bounds the refused names of a client that are shown.
const maxShown = 100

// Clients lists who is connected, by node.
func (s *Server) Clients() []Sync {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	out := make([]Sync, 0, len(all))
	for _, c := range all {
		out = append(out, c.sync())
	}
	slices.SortFunc(out, func(a, b Sync) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.From, b.From)) })
	return out
}

func (c *client) sync() Sync {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Sync{Node: c.caller.Node, Pod: c.caller.Pod, Account: c.caller.Account(), Cluster: c.cluster, Version: c.version, Build: c.build, From: c.from, Connected: c.opened, Types: map[string]TypeSync{}}
	if c.waypoint != nil {
		out.Waypoint, out.Gone = c.waypoint.name(), c.waypoint.gone.Load()
	}
	for _, chain := range c.chains {
		head, _ := chain.log.next()
		for _, sub := range chain.subs {
			if sub != nil {
				out.Types[kindOf(sub.typeURL)] = sub.sync(head)
			}
		}
	}
	return out
}

func (s *subscription) sync(head uint64) TypeSync {
	out := TypeSync{Nack: s.reason}
	if s.acked != nil {
		out.Acked, out.AckedAt, out.UpTo = s.acked.nonce, s.acked.at, s.acked.upTo
	}
	if len(s.waiting) == 0 {
		out.UpTo = s.cursor // what came since is of no concern to it
	} else {
		out.Since = s.waiting[0].at
	}
	for _, w := range s.waiting {
		out.Waiting = append(out.Waiting, w.nonce)
	}
	if head > out.UpTo {
		out.Behind = head - out.UpTo
	}
	if len(s.refused) > 0 {
		out.Retry = s.retry
		out.Refused = slices.Sorted(maps.Keys(s.refused))
		out.Refused = out.Refused[:min(len(out.Refused), maxShown)]
	}
	return out
}

// refusing reports whether the client has refused something that it has not
// taken since.
func (c *client) refusing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, chain := range c.chains {
		if slices.ContainsFunc(chain.subs, func(s *subscription) bool { return s != nil && len(s.refused) > 0 }) {
			return true
		}
	}
	return false
}
