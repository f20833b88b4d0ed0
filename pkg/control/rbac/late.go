package rbac

import (
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const (
	stateFilterName = "envoy.filters.network.set_filter_state"
	// waitedKey is the filter state with the milliseconds that a connection's first
	// bytes were waited for.
	waitedKey = "fairlead.dev/waited"
	// lateSuffix follows the name of a rule that holds for connections that were
	// waited for in vain.
	lateSuffix = "-late"
)

// waited notes how old a connection is when the detection of its protocol has ended.
func waited() *netstatev3.Config {
	return &netstatev3.Config{OnNewConnection: []*statev3.FilterStateValue{{
		Key: &statev3.FilterStateValue_ObjectKey{ObjectKey: waitedKey}, FactoryKey: "envoy.string",
		Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "%DURATION%"}}}}},
	}}}
}

// late restricts a rule to connections whose first bytes did not come in time: what
// follows may be a request, which nobody would look at. In time is half of the time
// that the detection takes, since timers are not exact.
func late(p *rbacv3.Policy, detection time.Duration) {
	inTime := &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
		Key: waitedKey, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: regex(below(detection / 2 / time.Millisecond))},
	}}}
	for i, of := range p.Principals {
		p.Principals[i] = &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: []*rbacv3.Principal{of, notID(inTime)}}}}
	}
}

// below is a regular expression of the decimal numbers from zero to less than n.
func below(n time.Duration) string {
	digits := strconv.FormatInt(int64(max(n, 1)), 10)
	var out []string
	if len(digits) > 1 {
		out = append(out, "[0-9]{1,"+strconv.Itoa(len(digits)-1)+"}")
	}
	for i, d := range digits {
		if d == '0' {
			continue
		}
		one := digits[:i] + "[0-" + string(d-1) + "]"
		if rest := len(digits) - i - 1; rest > 0 {
			one += "[0-9]{" + strconv.Itoa(rest) + "}"
		}
		out = append(out, one)
	}
	return strings.Join(out, "|")
}

// late tells whether a filter has rules on late connections.
func (f *filterSpec) late() bool {
	for _, rules := range []*rbacv3.RBAC{f.rules, f.shadow} {
		for name := range rules.GetPolicies() {
			if strings.HasSuffix(name, lateSuffix) {
				return true
			}
		}
	}
	return false
}
