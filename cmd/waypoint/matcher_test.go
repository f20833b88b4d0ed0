package main

import "testing"

// The statistics of clusters are chosen as Istio's proxyStatsMatcher says.
func TestStatsMatcher(t *testing.T) {
	const name = "cluster.outbound|80||web.shop.svc.cluster.local.upstream_rq_total"
	for text, want := range map[string]bool{
		"": false, "{}": false,
		`{"inclusionPrefixes": ["cluster.outbound"]}`:         true,
		`{"inclusionSuffixes": ["upstream_rq"]}`:              false,
		`{"inclusionSuffixes": ["x", "upstream_rq_total"]}`:   true,
		`{"inclusionRegexps": ["cluster\\..*"]}`:              true,
		`{"inclusionRegexps": ["cluster", "upstream_rq_.*"]}`: false,
	} {
		included, err := includedOf(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := included(name); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"no", `{"inclusionRegexps": ["("]}`} {
		if _, err := includedOf(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
