package cluster

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	providedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type policy uint8

const (
	roundRobin policy = iota
	leastRequest
	random
	ringHash
	maglev
	provided
)

// Envoy's defaults and limits.
const (
	defaultRing     = 1024
	maxRing         = 8 << 20
	defaultMaglev   = 65537
	maxMaglev       = 5_000_011
	defaultPanic    = 50
	defaultChoices  = 2
	defaultSlowPart = 0.1
)

// balancing is a compiled lb_policy or load_balancing_policy.
type balancing struct {
	policy policy
	// LEAST_REQUEST: choices per pick, or all; the exponent of active requests.
	choices  uint32
	fullScan bool
	bias     float64
	slow     slowStart
	// Hashed ones.
	minRing, maxRing, tableSize uint64
	murmur, hashHostname        bool
	balanceFactor               uint32 // percent; 0 is none
	localityWeighted            bool
	panic                       uint32 // percent; 0 is never
	failOnPanic                 bool
}

type slowStart struct {
	window     time.Duration
	aggression float64
	floor      float64 // least part of the weight
}

func balancingOf(c *clusterv3.Cluster) (balancing, string, error) {
	common := c.GetCommonLbConfig()
	lb := balancing{
		choices: defaultChoices, bias: 1, minRing: defaultRing, maxRing: maxRing, tableSize: defaultMaglev,
		panic:            percentOf(common.GetHealthyPanicThreshold(), defaultPanic),
		localityWeighted: common.GetLocalityWeightedLbConfig() != nil,
		failOnPanic:      common.GetZoneAwareLbConfig().GetFailTrafficOnPanic(),
		hashHostname:     common.GetConsistentHashingLbConfig().GetUseHostnameForHashing(),
		balanceFactor:    number(common.GetConsistentHashingLbConfig().GetHashBalanceFactor(), 0),
	}
	if c.GetLoadBalancingPolicy() != nil {
		return lb, "load_balancing_policy", lb.typed(c.GetLoadBalancingPolicy())
	}
	switch c.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		lb.policy = roundRobin
		lb.slow = slowOf(c.GetRoundRobinLbConfig().GetSlowStartConfig())
	case clusterv3.Cluster_LEAST_REQUEST:
		lb.policy = leastRequest
		o := c.GetLeastRequestLbConfig()
		lb.slow = slowOf(o.GetSlowStartConfig())
		lb.choices = max(2, number(o.GetChoiceCount(), defaultChoices))
		if b := o.GetActiveRequestBias(); b != nil {
			lb.bias = b.GetDefaultValue()
		}
	case clusterv3.Cluster_RANDOM:
		lb.policy = random
	case clusterv3.Cluster_RING_HASH:
		lb.policy = ringHash
		o := c.GetRingHashLbConfig()
		lb.ring(o.GetMinimumRingSize(), o.GetMaximumRingSize(), o.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2)
	case clusterv3.Cluster_MAGLEV:
		lb.policy = maglev
		lb.tableSize = number64(c.GetMaglevLbConfig().GetTableSize(), defaultMaglev)
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		lb.policy = provided
	default:
		return lb, "lb_policy", fmt.Errorf("%v is not supported", c.GetLbPolicy())
	}
	return lb, "lb_policy", lb.check()
}

func (lb *balancing) ring(low, high *wrapperspb.UInt64Value, murmur bool) {
	lb.minRing, lb.maxRing, lb.murmur = number64(low, defaultRing), number64(high, maxRing), murmur
}

// typed takes the first policy that is known, as Envoy does.
func (lb *balancing) typed(p *clusterv3.LoadBalancingPolicy) error {
	var names []string
	for _, entry := range p.GetPolicies() {
		message, err := entry.GetTypedExtensionConfig().GetTypedConfig().UnmarshalNew()
		if err != nil {
			names = append(names, entry.GetTypedExtensionConfig().GetName())
			continue
		}
		known, err := lb.policyOf(message)
		if known || err != nil {
			return errors.Join(err, lb.check())
		}
		names = append(names, entry.GetTypedExtensionConfig().GetName())
	}
	return fmt.Errorf("none of the policies %q is supported", names)
}

func (lb *balancing) policyOf(message proto.Message) (known bool, err error) {
	local := func(l *commonv3.LocalityLbConfig) {
		lb.localityWeighted = l.GetLocalityWeightedLbConfig() != nil
		lb.failOnPanic = l.GetZoneAwareLbConfig().GetFailTrafficOnPanic()
	}
	hashing := func(h *commonv3.ConsistentHashingLbConfig, weighted bool) {
		lb.hashHostname, lb.balanceFactor = h.GetUseHostnameForHashing(), number(h.GetHashBalanceFactor(), 0)
		lb.localityWeighted = weighted
	}
	switch m := message.(type) {
	case *roundv3.RoundRobin:
		lb.policy, lb.slow = roundRobin, slowOf(m.GetSlowStartConfig())
		local(m.GetLocalityLbConfig())
	case *leastv3.LeastRequest:
		lb.policy, lb.slow = leastRequest, slowOf(m.GetSlowStartConfig())
		lb.choices = max(2, number(m.GetChoiceCount(), defaultChoices))
		lb.fullScan = m.GetSelectionMethod() == leastv3.LeastRequest_FULL_SCAN
		if b := m.GetActiveRequestBias(); b != nil {
			lb.bias = b.GetDefaultValue()
		}
		local(m.GetLocalityLbConfig())
	case *randomv3.Random:
		lb.policy = random
		local(m.GetLocalityLbConfig())
	case *ringv3.RingHash:
		lb.policy = ringHash
		hashing(m.GetConsistentHashingLbConfig(), m.GetLocalityWeightedLbConfig() != nil)
		lb.ring(m.GetMinimumRingSize(), m.GetMaximumRingSize(), m.GetHashFunction() == ringv3.RingHash_MURMUR_HASH_2)
	case *maglevv3.Maglev:
		lb.policy, lb.tableSize = maglev, number64(m.GetTableSize(), defaultMaglev)
		hashing(m.GetConsistentHashingLbConfig(), m.GetLocalityWeightedLbConfig() != nil)
	case *wrrv3.WrrLocality:
		if err := lb.typed(m.GetEndpointPickingPolicy()); err != nil {
			return true, err
		}
		lb.localityWeighted = true
	case *providedv3.ClusterProvided:
		lb.policy = provided
	default:
		return false, nil
	}
	return true, nil
}

func (lb *balancing) check() error {
	switch {
	case lb.minRing > maxRing || lb.maxRing > maxRing:
		return fmt.Errorf("ring sizes are at most %d", maxRing)
	case lb.minRing > lb.maxRing:
		return fmt.Errorf("minimum_ring_size %d is over maximum_ring_size %d", lb.minRing, lb.maxRing)
	case lb.minRing == 0 || lb.maxRing == 0:
		return errors.New("ring sizes are at least 1")
	case lb.tableSize > maxMaglev || lb.tableSize < 2 || !new(big.Int).SetUint64(lb.tableSize).ProbablyPrime(0):
		return fmt.Errorf("table_size %d: a prime number up to %d is needed", lb.tableSize, maxMaglev)
	case lb.bias < 0 || math.IsNaN(lb.bias):
		return fmt.Errorf("active_request_bias %g is below 0", lb.bias)
	case lb.balanceFactor > 0 && lb.balanceFactor < 100:
		return fmt.Errorf("hash_balance_factor %d is below 100", lb.balanceFactor)
	}
	return nil
}

// slowConfig is the slow start of both generations of the API.
type slowConfig interface {
	GetSlowStartWindow() *durationpb.Duration
	GetMinWeightPercent() *typev3.Percent
}

func slowOf(c slowConfig) slowStart {
	s := slowStart{window: c.GetSlowStartWindow().AsDuration(), aggression: 1, floor: defaultSlowPart}
	switch c := c.(type) {
	case *clusterv3.Cluster_SlowStartConfig:
		if c.GetAggression() != nil {
			s.aggression = c.GetAggression().GetDefaultValue()
		}
	case *commonv3.SlowStartConfig:
		if c.GetAggression() != nil {
			s.aggression = c.GetAggression().GetDefaultValue()
		}
	}
	if !(s.aggression > 0) {
		s.aggression = 1 // as Envoy takes a value that makes no sense
	}
	if c.GetMinWeightPercent() != nil {
		s.floor = c.GetMinWeightPercent().GetValue() / 100
	}
	return s
}

// percentOf rounds as Envoy does.
func percentOf(p *typev3.Percent, unset uint32) uint32 {
	if p == nil {
		return unset
	}
	return min(100, uint32(math.Round(max(0, p.GetValue()))))
}

func number64(v *wrapperspb.UInt64Value, unset uint64) uint64 {
	if v == nil {
		return unset
	}
	return v.GetValue()
}
