package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// statsMatcher is the variable with the mesh configuration's proxyStatsMatcher, in JSON:
// which statistics of clusters this waypoint shows. Empty is none, as in Istio.
const statsMatcher = "PROXY_STATS_MATCHER"

// includedOf reads a proxyStatsMatcher (ProxyConfig.ProxyStatsMatcher of Istio). Regular
// expressions match whole names.
func includedOf(text string) (func(name string) bool, error) {
	var m struct{ InclusionPrefixes, InclusionSuffixes, InclusionRegexps []string }
	if text != "" {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, fmt.Errorf("%s: %w", statsMatcher, err)
		}
	}
	var patterns []*regexp.Regexp
	for _, r := range m.InclusionRegexps {
		pattern, err := regexp.Compile("^(?:" + r + ")$")
		if err != nil {
			return nil, fmt.Errorf("%s: inclusionRegexps: %w", statsMatcher, err)
		}
		patterns = append(patterns, pattern)
	}
	return func(name string) bool {
		return slices.ContainsFunc(m.InclusionPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) ||
			slices.ContainsFunc(m.InclusionSuffixes, func(s string) bool { return strings.HasSuffix(name, s) }) ||
			slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
	}, nil
}
