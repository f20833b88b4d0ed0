package route

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// weighted is a WeightedCluster.
type weighted struct {
	entries []*weightedEntry
	total   uint64
	useHash bool
	header  string
}

type weightedEntry struct {
	scope
	cluster, clusterHeader string
	// end is the sum of the weights up to and with this one.
	end           uint64
	hostLiteral   string
	metadataMatch map[string]any
}

func (c *compiler) weighted(m *routev3.WeightedCluster, f *Forward, where string) (*weighted, error) {
	w := &weighted{}
	switch s := m.GetRandomValueSpecifier().(type) {
	case nil:
	case *routev3.WeightedCluster_HeaderName:
		w.header = strings.ToLower(s.HeaderName)
	case *routev3.WeightedCluster_UseHashPolicy:
		w.useHash = s.UseHashPolicy.GetValue()
	default:
		return nil, fmt.Errorf("random values of kind %T are not supported", s)
	}
	for i, e := range m.GetClusters() {
		if (e.GetName() == "") == (e.GetClusterHeader() == "") {
			return nil, fmt.Errorf("clusters[%d]: set one of name and cluster_header", i)
		}
		if e.GetWeight() == nil {
			return nil, fmt.Errorf("clusters[%d] %q: weight is missing", i, e.GetName())
		}
		one := &weightedEntry{
			cluster: e.GetName(), clusterHeader: strings.ToLower(e.GetClusterHeader()), hostLiteral: e.GetHostRewriteLiteral(),
			metadataMatch: lbMetadata(e.GetMetadataMatch(), f.MetadataMatch),
		}
		w.total += uint64(e.GetWeight().GetValue())
		one.end = w.total
		var err error
		if one.scope, err = c.scope(e, where); err != nil {
			return nil, fmt.Errorf("clusters[%d] %q: %w", i, e.GetName(), err)
		}
		w.entries = append(w.entries, one)
	}
	switch {
	case w.total == 0:
		return nil, errors.New("the sum of the weights is 0")
	case w.total > math.MaxUint32:
		return nil, fmt.Errorf("the sum of the weights, %d, is over %d", w.total, uint32(math.MaxUint32))
	}
	return w, nil
}

// Choice is the cluster that one request goes to.
type Choice struct {
	// Cluster is "" where the header that should name it is not there.
	Cluster string
	entry   *weightedEntry
	forward *Forward
}

func (c Choice) scope() *scope {
	if c.entry == nil {
		return nil
	}
	return &c.entry.scope
}

// MetadataMatch is what endpoints must have (envoy.lb), or nil.
func (c Choice) MetadataMatch() map[string]any {
	switch {
	case c.entry != nil:
		return c.entry.metadataMatch
	case c.forward != nil:
		return c.forward.MetadataMatch
	}
	return nil
}

// Pick chooses the cluster: the one there is, or by weight, with the value of a
// header, the hash policies' or the request's random number. A client that a hash
// policy gives a cookie is already counted by that cookie at its first request, so
// that it stays where it began; with Envoy only from its second one.
func (f *Forward) Pick(in *Input) Choice {
	switch {
	case f.weighted != nil:
		e := f.weighted.pick(f, in)
		c := Choice{Cluster: e.cluster, entry: e, forward: f}
		if e.clusterHeader != "" {
			c.Cluster, _ = in.Request.Value(e.clusterHeader)
		}
		return c
	case f.clusterHeader != "":
		name, _ := in.Request.Value(f.clusterHeader)
		return Choice{Cluster: name, forward: f}
	}
	return Choice{Cluster: f.cluster, forward: f}
}

func (w *weighted) pick(f *Forward, in *Input) *weightedEntry {
	value := in.Random
	if w.useHash {
		if h, ok, _ := f.Hash(in); ok {
			value = h
		}
	}
	if w.header != "" && in.Request.Fields.Count(w.header) == 1 {
		v := strings.Trim(in.Request.Fields.Get(w.header), " \t\n\v\f\r")
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			value = n
		}
	}
	value %= w.total
	for _, e := range w.entries {
		if value < e.end {
			return e
		}
	}
	return w.entries[len(w.entries)-1]
}
