package waypoint

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

var update = flag.Bool("update", false, "write testdata/oracle.txt")

const recordings = "../../../shared/oracle"

// recorded is what a real istiod sent to a waypoint.
type recorded struct {
	Clusters, Endpoints, Listeners map[string]json.RawMessage
}

func readRecording(t testing.TB, file string) (out recorded) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(file, err)
	}
	return out
}

// resources are a recording's, with those that are the base's.
func resources[M proto.Message](t testing.TB, own, base map[string]json.RawMessage, empty func() M) map[string]proto.Message {
	t.Helper()
	out := map[string]proto.Message{}
	for name, text := range own {
		if string(text) == `"=base"` {
			text = base[name]
		}
		out[name] = parse(t, text, empty())
	}
	return out
}

// What a real istiod sends is loaded, and each filter chain of it serves a request or a
// connection, or refuses it with its reason. testdata/oracle.txt says which does what.
func TestRecordedChainsServe(t *testing.T) {
	files, _ := filepath.Glob(recordings + "/*/waypoint*.json")
	if len(files) == 0 {
		t.Skip("no recordings here")
	}
	base := readRecording(t, recordings+"/base/waypoint.json")
	var lines []string
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		if variant := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "waypoint"), ".json"); variant != "" {
			name += variant
		}
		t.Run(name, func(t *testing.T) {
			for _, line := range serveRecording(t, readRecording(t, file), base) {
				line = name + "  " + line
				for chain, what := range drawn {
					if strings.HasPrefix(line, chain+"  200 ") || strings.HasPrefix(line, chain+"  carried true ") {
						line = chain + "  " + what
					}
				}
				lines = append(lines, line)
			}
		})
	}
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/oracle.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("chains do something else than %s says; -update writes it anew:\n%s", golden, difference(string(want), got))
	}
}

// drawn are chains whose answer is drawn, each with what it may be.
var drawn = map[string]string{
	"tcproute-tlsroute  inbound-vip|5432|tcp|db.default.svc.cluster.local":            "carried true by either cluster of two",
	"grpcroute  inbound-vip|9090|http|multi.default.svc.cluster.local":                "200 from either cluster of two",
	"httproute-weights  inbound-vip|9080|http|reviews.default.svc.cluster.local":      "200 from either cluster of two",
	"vs-weights-subsets  inbound-vip|9080|http|reviews.default.svc.cluster.local":     "200 from either cluster of two",
	"vs-timeout-retry-fault  inbound-vip|9080|http|ratings.default.svc.cluster.local": "200 via_upstream, or fault_filter_abort by chance",
}

func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}

func serveRecording(t *testing.T, own, base recorded) (lines []string) {
	w := newWorld(t)
	for typeURL, r := range map[string]map[string]proto.Message{
		xds.ClusterType:  resources(t, own.Clusters, base.Clusters, func() *clusterv3.Cluster { return &clusterv3.Cluster{} }),
		xds.EndpointType: resources(t, own.Endpoints, base.Endpoints, func() *endpointv3.ClusterLoadAssignment { return &endpointv3.ClusterLoadAssignment{} }),
	} {
		for name, err := range w.apply(typeURL, r) {
			lines = append(lines, fmt.Sprintf("%s  refused: %v", name, err))
		}
	}
	listeners := resources(t, own.Listeners, base.Listeners, func() *listenerv3.Listener { return &listenerv3.Listener{} })
	nacks := w.apply(xds.ListenerType, listeners)
	for name, err := range nacks {
		lines = append(lines, fmt.Sprintf("%s  refused: %s", name, strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	main := listeners["main_internal"].(*listenerv3.Listener)
	if w.engine.Address("connect_terminate") == nil {
		t.Fatal("no tunnel can be opened")
	}
	match, err := matchOf(main)
	if err != nil {
		t.Fatal(err)
	}
	candidates := ends(t, own, base)
	for i, fc := range withDefault(main) {
		name := chainName(fc, i)
		line := name + "  not reached by its listener's matcher"
		for _, c := range candidates {
			if found, ok := match(c.input()); ok && found == name {
				line = name + "  " + w.serveChain(fc, c)
				break
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// end is a destination and what a client says first.
type end struct {
	to       netip.AddrPort
	protocol string // "", "http/1.1", "h2c", "tls"
}

func (e end) input() matcher.ConnInput {
	in := matcher.ConnInput{Destination: e.to, TransportProtocol: "raw_buffer", FilterState: map[string]string{"io.istio.connect_authority": e.to.String()}}
	switch e.protocol {
	case "tls":
		in.TransportProtocol = "tls"
	case "":
	default:
		in.ApplicationProtocols = []string{e.protocol}
	}
	return in
}

var (
	addresses = regexp.MustCompile(`"addressPrefix": ?"([^"]+)"|"address": ?"([0-9.]+)"`)
	ports     = regexp.MustCompile(`"(?:map)": ?\{|"([0-9]{2,5})": ?\{|"portValue": ?([0-9]+)`)
)

// ends are all pairs of addresses and ports that a recording speaks of.
func ends(t *testing.T, own, base recorded) (out []end) {
	t.Helper()
	found, numbers := map[netip.Addr]bool{}, map[string]bool{"80": true}
	for _, part := range []struct{ own, base map[string]json.RawMessage }{{own.Listeners, base.Listeners}, {own.Endpoints, base.Endpoints}} {
		for name, text := range part.own {
			if string(text) == `"=base"` {
				text = part.base[name]
			}
			for _, m := range addresses.FindAllStringSubmatch(string(text), -1) {
				if a, err := netip.ParseAddr(m[1] + m[2]); err == nil {
					found[a] = true
				}
			}
			for _, m := range ports.FindAllStringSubmatch(string(text), -1) {
				if p := m[1] + m[2]; p != "" {
					numbers[p] = true
				}
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(found), netip.Addr.Compare) {
		for _, p := range slices.Sorted(maps.Keys(numbers)) {
			to, err := netip.ParseAddrPort(netip.AddrPortFrom(a, 0).String()[:len(netip.AddrPortFrom(a, 0).String())-1] + p)
			if err != nil {
				continue
			}
			for _, protocol := range []string{"http/1.1", "", "h2c", "tls"} {
				out = append(out, end{to, protocol})
			}
		}
	}
	return out
}

// serveChain asks a chain for something and says what came of it.
func (w *world) serveChain(fc *listenerv3.FilterChain, e end) string {
	m := connectionManager(fc)
	if m == nil {
		return w.serveTCP(e, fc.GetName())
	}
	best := ""
	for _, r := range requestsFor(m.GetRouteConfig()) {
		got := w.serveRequest(e, r)
		if best == "" || strings.HasPrefix(got, "200 ") {
			best = got
		}
		if strings.HasPrefix(got, "200 ") || strings.HasPrefix(got, "503 configuration_refused") {
			break
		}
	}
	return best
}

func (w *world) serveRequest(e end, request string) string {
	before := w.recordCount()
	c, err := w.connect(e.to.String())
	if err != nil {
		return "CONNECT refused: " + err.Error()
	}
	defer c.Abort()
	r, body, err := exchange(c, request)
	if err != nil {
		return "reset: " + err.Error()
	}
	info := w.recorded(before)
	if reason, ok := strings.CutPrefix(body, "the configuration cannot be enforced: "); ok {
		reason, _, _ = strings.Cut(reason, "; those that are")
		return fmt.Sprintf("%d %s: %s", r.StatusCode, info.Details, reason)
	}
	details := info.Details
	if i := strings.IndexByte(details, '{'); i >= 0 { // a TLS library's words
		details = details[:i]
	}
	if info.Cluster != "" {
		details += " " + info.Cluster
	}
	return fmt.Sprintf("%d %s", r.StatusCode, details)
}

func (w *world) serveTCP(e end, name string) string {
	before := w.tcpCount()
	c, err := w.connect(e.to.String())
	if err != nil {
		return "CONNECT refused: " + err.Error()
	}
	defer c.Abort()
	hello := "\x00\x01\x02 who is there?\n"
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, len(hello))
	if _, err = io.WriteString(c, hello); err == nil {
		_, err = io.ReadFull(c, got)
	}
	if err == nil {
		c.Abort()
		return fmt.Sprintf("carried %t by %s", string(got) == hello, w.tcpRecorded(before).Cluster)
	}
	if refused := w.engine.listeners["main_internal"].chains[name].slot.Chain().Refusal(); refused != nil {
		return "reset: " + refused.Error()
	}
	info := w.tcpRecorded(before)
	return strings.TrimRight(fmt.Sprintf("reset %s %s", info.Flags, info.Termination), " ")
}

// requestsFor are requests that a route table's routes may match: one for each route
// whose match names no regular expression.
func requestsFor(c *routev3.RouteConfiguration) (out []string) {
	for _, vh := range c.GetVirtualHosts() {
		host := strings.Replace(vh.GetDomains()[0], "*", "any", 1)
		for _, r := range vh.GetRoutes() {
			if request, ok := requestFor(host, r.GetMatch()); ok {
				out = append(out, request)
			}
		}
	}
	return append(out, "GET / HTTP/1.1\r\nhost: any\r\n\r\n")
}

func requestFor(host string, m *routev3.RouteMatch) (string, bool) {
	path, method, fields := "", "GET", ""
	switch {
	case m.GetPath() != "":
		path = m.GetPath()
	case m.GetPrefix() != "":
		path = m.GetPrefix()
	case m.GetPathSeparatedPrefix() != "":
		path = m.GetPathSeparatedPrefix()
	default:
		return "", false
	}
	for i, q := range m.GetQueryParameters() {
		path += []string{"?", "&"}[min(i, 1)] + q.GetName() + "=" + q.GetStringMatch().GetExact()
	}
	for _, h := range m.GetHeaders() {
		value := h.GetStringMatch().GetExact() + h.GetStringMatch().GetPrefix() + h.GetExactMatch() //nolint:staticcheck // still sent
		switch {
		case h.GetInvertMatch():
		case h.GetName() == ":method":
			method = value
		case h.GetName() == ":authority":
			host = value
		case strings.HasPrefix(h.GetName(), ":"):
		default:
			fields += h.GetName() + ": " + value + "\r\n"
		}
	}
	return method + " " + path + " HTTP/1.1\r\nhost: " + host + "\r\n" + fields + "\r\n", true
}
