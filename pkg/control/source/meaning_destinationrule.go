package source

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

func (m meaning) destinationRule(d *networkingv1.DestinationRule) {
	s := &d.Spec
	if s.Host == "" {
		m.fail("spec.host", "a DestinationRule needs a host")
	} else if err := hostError(s.Host); s.Host != "*" && err != "" {
		m.fail("spec.host", "%q: %s", s.Host, err)
	}
	m.trafficPolicy("spec.trafficPolicy", s.TrafficPolicy)
	names := map[string]int{}
	for i, sub := range s.Subsets {
		at := fmt.Sprintf("spec.subsets[%d]", i)
		if errs := validation.IsDNS1123Label(strings.ToLower(strings.ReplaceAll(sub.GetName(), "_", "-"))); len(errs) > 0 {
			m.fail(at+".name", "%q is not a name: %s", sub.GetName(), errs[0])
		}
		if first, twice := names[sub.GetName()]; twice {
			m.fail(at+".name", "subset %q stands already in spec.subsets[%d]", sub.GetName(), first)
		} else {
			names[sub.GetName()] = i
		}
		m.labels(at+".labels", sub.GetLabels())
		m.trafficPolicy(at+".trafficPolicy", sub.GetTrafficPolicy())
		m.replaced(at+".trafficPolicy", s.TrafficPolicy, sub.GetTrafficPolicy())
	}
	m.labels("spec.workloadSelector.matchLabels", s.GetWorkloadSelector().GetMatchLabels())
	for i, to := range s.ExportTo {
		if to != "." && to != "*" && len(validation.IsDNS1123Label(to)) > 0 {
			m.fail(fmt.Sprintf("spec.exportTo[%d]", i), `%q is neither ".", "*" nor a namespace`, to)
		}
	}
}

// replaced warns of limits that a subset loses: its policy's field takes the
// place of the rule's as a whole.
func (m meaning) replaced(at string, rule, subset *networkingapi.TrafficPolicy) {
	if rule.GetConnectionPool() == nil || subset.GetConnectionPool() == nil {
		return
	}
	own := map[string]bool{}
	for _, name := range limitsOf(subset.ConnectionPool) {
		own[name] = true
	}
	var lost []string
	for _, name := range limitsOf(rule.ConnectionPool) {
		if !own[name] {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		m.warn(at+".connectionPool", "takes the place of the rule's connectionPool as a whole; these limits no longer apply to the subset: "+strings.Join(lost, ", "))
	}
}

func limitsOf(p *networkingapi.ConnectionPoolSettings) (names []string) {
	tcp, http := p.GetTcp(), p.GetHttp()
	for _, l := range []struct {
		name string
		set  bool
	}{
		{"tcp.maxConnections", tcp.GetMaxConnections() > 0}, {"tcp.connectTimeout", tcp.GetConnectTimeout() != nil}, {"tcp.idleTimeout", tcp.GetIdleTimeout() != nil},
		{"tcp.maxConnectionDuration", tcp.GetMaxConnectionDuration() != nil}, {"tcp.tcpKeepalive", tcp.GetTcpKeepalive() != nil},
		{"http.http1MaxPendingRequests", http.GetHttp1MaxPendingRequests() > 0}, {"http.http2MaxRequests", http.GetHttp2MaxRequests() > 0},
		{"http.maxRequestsPerConnection", http.GetMaxRequestsPerConnection() > 0}, {"http.maxRetries", http.GetMaxRetries() > 0},
		{"http.idleTimeout", http.GetIdleTimeout() != nil}, {"http.maxConcurrentStreams", http.GetMaxConcurrentStreams() > 0},
	} {
		if l.set {
			names = append(names, l.name)
		}
	}
	return names
}

func (m meaning) trafficPolicy(at string, p *networkingapi.TrafficPolicy) {
	if p == nil {
		return
	}
	m.policyFields(at, p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls)
	if b := p.RetryBudget; b != nil {
		m.percent(at+".retryBudget.percent", b.GetPercent().GetValue())
	}
	if p.Tunnel != nil {
		m.warn(at+".tunnel", "has no effect: waypoints do not tunnel through a proxy")
	}
	ports := map[uint32]bool{}
	for i, own := range p.PortLevelSettings {
		path := fmt.Sprintf("%s.portLevelSettings[%d]", at, i)
		m.port(path+".port.number", own.GetPort().GetNumber())
		if ports[own.GetPort().GetNumber()] {
			m.fail(path+".port.number", "port %d stands before", own.GetPort().GetNumber())
		}
		ports[own.GetPort().GetNumber()] = true
		m.policyFields(path, own.GetLoadBalancer(), own.GetConnectionPool(), own.GetOutlierDetection(), own.GetTls())
	}
}

func (m meaning) policyFields(at string, lb *networkingapi.LoadBalancerSettings, pool *networkingapi.ConnectionPoolSettings, o *networkingapi.OutlierDetection, tls *networkingapi.ClientTLSSettings) {
	m.loadBalancer(at+".loadBalancer", lb)
	m.connectionPool(at+".connectionPool", pool)
	m.outlierDetection(at+".outlierDetection", o)
	m.clientTLS(at+".tls", tls)
}

func (m meaning) loadBalancer(at string, lb *networkingapi.LoadBalancerSettings) {
	if lb == nil {
		return
	}
	if h := lb.GetConsistentHash(); h != nil {
		m.consistentHash(at+".consistentHash", h)
		if lb.GetWarmup() != nil {
			m.warn(at+".warmup", "has no effect with consistentHash: only ROUND_ROBIN and LEAST_REQUEST warm up")
		}
	}
	if w := lb.Warmup; w != nil {
		if w.Duration == nil {
			m.fail(at+".warmup.duration", "a duration is needed")
		}
		m.atLeastMillisecond(at+".warmup.duration", w.Duration)
		m.percent(at+".warmup.minimumPercent", w.GetMinimumPercent().GetValue())
		if w.Aggression != nil && w.Aggression.Value < 1 {
			m.fail(at+".warmup.aggression", "%v is less than 1", w.Aggression.Value)
		}
	}
	if lb.ZoneAwareLbSetting.GetEnabled().GetValue() {
		m.warn(at+".zoneAwareLbSetting", "has no effect: use localityLbSetting")
	}
	m.locality(at+".localityLbSetting", lb.LocalityLbSetting)
}

func (m meaning) consistentHash(at string, h *networkingapi.LoadBalancerSettings_ConsistentHashLB) {
	switch key := h.HashKey.(type) {
	case nil:
		m.fail(at, "needs one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName")
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if !httpguts.ValidHeaderFieldName(key.HttpHeaderName) {
			m.fail(at+".httpHeaderName", "%q is not a header name", key.HttpHeaderName)
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if !httpguts.ValidHeaderFieldName(key.HttpCookie.GetName()) {
			m.fail(at+".httpCookie.name", "%q is not a cookie's name", key.HttpCookie.GetName())
		}
		if ttl := key.HttpCookie.GetTtl(); ttl != nil && ttl.AsDuration() < 0 {
			m.fail(at+".httpCookie.ttl", "%s is negative", ttl.AsDuration())
		}
		m.cookieValue(at+".httpCookie.path", key.HttpCookie.GetPath())
		for i, a := range key.HttpCookie.GetAttributes() {
			at := fmt.Sprintf("%s.httpCookie.attributes[%d]", at, i)
			if !httpguts.ValidHeaderFieldName(a.GetName()) {
				m.fail(at+".name", "%q is not the name of a cookie's attribute, such as SameSite", a.GetName())
			}
			m.cookieValue(at+".value", a.GetValue())
		}
	}
	if size := h.GetMaglev().GetTableSize(); size > 0 && (size > maxMaglev || !prime(size)) {
		m.fail(at+".maglev.tableSize", "%d is not a prime up to %d, such as 65537", size, maxMaglev)
	}
	//nolint:staticcheck // the old place of minimumRingSize still counts
	for path, size := range map[string]uint64{".minimumRingSize": h.GetMinimumRingSize(), ".ringHash.minimumRingSize": h.GetRingHash().GetMinimumRingSize()} {
		if size > maxRing {
			m.fail(at+path, "%d is over %d", size, maxRing)
		}
	}
}

// cookieValue checks what stands in an attribute of Set-Cookie, which a semicolon or
// a control character would end (RFC 6265 section 4.1.1, av-octet).
func (m meaning) cookieValue(at, value string) {
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == ';' }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(value[i:])
		m.fail(at, "%q has a character that a cookie's attribute cannot have: %q", value, r)
	}
}

// The most that Envoy takes of a hash table and of a ring.
const (
	maxMaglev = 5000011
	maxRing   = 8 << 20
)

func prime(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

func (m meaning) locality(at string, l *networkingapi.LocalityLoadBalancerSetting) {
	if len(l.GetDistribute()) > 0 && (len(l.GetFailover()) > 0 || len(l.GetFailoverPriority()) > 0) {
		m.fail(at+".distribute", "only one of distribute and failover can be set")
	}
	for i, d := range l.GetDistribute() {
		sum := uint32(0)
		for _, to := range slices.Sorted(maps.Keys(d.GetTo())) {
			path := fmt.Sprintf("%s.distribute[%d].to[%s]", at, i, to)
			if d.To[to] == 0 || d.To[to] > 100 {
				m.fail(path, "weight %d is not between 1 and 100", d.To[to])
			}
			sum += d.To[to]
		}
		if sum != 100 {
			m.fail(fmt.Sprintf("%s.distribute[%d].to", at, i), "the weights add up to %d, not to 100", sum)
		}
		if d.GetFrom() == "" {
			m.fail(fmt.Sprintf("%s.distribute[%d].from", at, i), `a locality is needed, such as region/zone/* or *`)
		}
	}
	for i, f := range l.GetFailover() {
		path := fmt.Sprintf("%s.failover[%d]", at, i)
		switch {
		case f.GetFrom() == "" || f.GetTo() == "":
			m.fail(path, "from and to each need a region")
		case f.GetFrom() == f.GetTo():
			m.fail(path+".to", "%q is the region that it fails over from", f.GetTo())
		case strings.ContainsAny(f.GetFrom()+f.GetTo(), "/*"):
			m.fail(path, "from and to are regions, without zone or *")
		}
	}
}

func (m meaning) connectionPool(at string, p *networkingapi.ConnectionPoolSettings) {
	tcp, http := p.GetTcp(), p.GetHttp()
	for _, n := range []struct {
		path  string
		value int32
	}{
		{".tcp.maxConnections", tcp.GetMaxConnections()}, {".http.http1MaxPendingRequests", http.GetHttp1MaxPendingRequests()},
		{".http.http2MaxRequests", http.GetHttp2MaxRequests()}, {".http.maxRequestsPerConnection", http.GetMaxRequestsPerConnection()},
		{".http.maxRetries", http.GetMaxRetries()}, {".http.maxConcurrentStreams", http.GetMaxConcurrentStreams()},
	} {
		if n.value < 0 {
			m.fail(at+n.path, "%d is negative", n.value)
		}
	}
	for _, d := range []struct {
		path  string
		value *durationpb.Duration
	}{
		{".tcp.connectTimeout", tcp.GetConnectTimeout()}, {".tcp.maxConnectionDuration", tcp.GetMaxConnectionDuration()},
		{".http.idleTimeout", http.GetIdleTimeout()}, {".http.http2KeepAlive.interval", http.GetHttp2KeepAlive().GetInterval()},
		{".http.http2KeepAlive.timeout", http.GetHttp2KeepAlive().GetTimeout()},
	} {
		m.atLeastMillisecond(at+d.path, d.value)
	}
	if d := tcp.GetIdleTimeout(); d != nil && d.AsDuration() < 0 {
		m.fail(at+".tcp.idleTimeout", "%s is negative", d.AsDuration())
	}
	for path, d := range map[string]*durationpb.Duration{".time": tcp.GetTcpKeepalive().GetTime(), ".interval": tcp.GetTcpKeepalive().GetInterval()} {
		if d != nil && (d.AsDuration().Seconds() < 1 || d.GetNanos() != 0) {
			m.fail(at+".tcp.tcpKeepalive"+path, "%s is not a number of seconds", d.AsDuration())
		}
	}
	if k := http.GetHttp2KeepAlive(); k != nil && (k.Interval == nil || k.Timeout == nil) {
		m.fail(at+".http.http2KeepAlive", "interval and timeout are both needed")
	}
	if http.GetUseClientProtocol() && http.GetH2UpgradePolicy() == networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		m.fail(at+".http.useClientProtocol", "cannot be set together with h2UpgradePolicy UPGRADE")
	}
}

func (m meaning) outlierDetection(at string, o *networkingapi.OutlierDetection) {
	if o == nil {
		return
	}
	m.atLeastMillisecond(at+".interval", o.Interval)
	m.atLeastMillisecond(at+".baseEjectionTime", o.BaseEjectionTime)
	m.percent(at+".maxEjectionPercent", float64(o.MaxEjectionPercent))
	m.percent(at+".minHealthPercent", float64(o.MinHealthPercent))
	if o.ConsecutiveLocalOriginFailures.GetValue() > 0 && !o.SplitExternalLocalOriginErrors {
		m.fail(at+".consecutiveLocalOriginFailures", "counts only where splitExternalLocalOriginErrors is true")
	}
	//nolint:staticcheck // said because it does nothing
	if o.ConsecutiveErrors != 0 {
		m.warn(at+".consecutiveErrors", "has no effect: use consecutive5xxErrors or consecutiveGatewayErrors")
	}
	for i, code := range o.OutlierDetectionHttpErrorCodes {
		if code < 100 || code > 599 {
			m.fail(fmt.Sprintf("%s.outlierDetectionHttpErrorCodes[%d]", at, i), "%d is not a status code", code)
		}
	}
}

func (m meaning) clientTLS(at string, t *networkingapi.ClientTLSSettings) {
	switch t.GetMode() {
	case networkingapi.ClientTLSSettings_MUTUAL:
		if t.CredentialName == "" {
			if t.ClientCertificate == "" {
				m.fail(at+".clientCertificate", "mode MUTUAL needs a client certificate")
			}
			if t.PrivateKey == "" {
				m.fail(at+".privateKey", "mode MUTUAL needs the private key of the client certificate")
			}
		}
	case networkingapi.ClientTLSSettings_ISTIO_MUTUAL:
		for _, f := range []struct{ name, value string }{{"clientCertificate", t.ClientCertificate}, {"privateKey", t.PrivateKey}, {"caCertificates", t.CaCertificates}} {
			if f.value != "" {
				m.fail(at+"."+f.name, "mode ISTIO_MUTUAL takes the mesh's own certificates")
			}
		}
	}
	if t.GetCredentialName() != "" {
		m.fail(at+".credentialName", "is read by gateways alone, and not at waypoints: name files of the waypoint in clientCertificate, privateKey and caCertificates")
	}
	if t.GetInsecureSkipVerify().GetValue() && (t.GetCaCertificates() != "" || len(t.GetSubjectAltNames()) > 0) {
		m.fail(at+".insecureSkipVerify", "cannot be set together with caCertificates or subjectAltNames, which it would not look at")
	}
}

func (m meaning) percent(path string, v float64) {
	if v < 0 || v > 100 {
		m.fail(path, "%v is not between 0 and 100", v)
	}
}

func (m meaning) labels(at string, set map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if errs := validation.IsQualifiedName(k); len(errs) > 0 {
			m.fail(at, "%q: %s", k, errs[0])
		}
		if errs := validation.IsValidLabelValue(set[k]); len(errs) > 0 {
			m.fail(at+"."+k, "%q: %s", set[k], errs[0])
		}
	}
}
