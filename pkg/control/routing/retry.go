package routing

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// What istiod retries where nothing is said: what surely did not reach the
// application.
const (
	defaultRetryOn  = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
	defaultAttempts = 2
	// hostSelections is how often another host is looked for.
	hostSelections  = 5
	retriableStatus = "retriable-status-codes"
)

var previousHosts = []*routev3.RetryPolicy_RetryHostPredicate{{
	Name: "envoy.retry_host_predicates.previous_hosts",
	ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
		TypedConfig: packed(&previoushostsv3.PreviousHostsPredicate{})},
}}

var previousPriorities = &routev3.RetryPolicy_RetryPriority{
	Name: "envoy.retry_priorities.previous_priorities",
	ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
		TypedConfig: packed(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
}

// packed packs a message that is known to be sound.
func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic("routing: " + err.Error())
	}
	return a
}

func retryPolicy(attempts uint32) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn: defaultRetryOn, NumRetries: wrapperspb.UInt32(attempts),
		RetryHostPredicate: previousHosts, HostSelectionRetryMaxAttempts: hostSelections,
	}
}

// defaultRetry is the mesh's policy, where a rule has none of its own.
func (b *Builder) defaultRetry() *routev3.RetryPolicy {
	if b.standardRetry == nil {
		b.standardRetry = retryPolicy(defaultAttempts)
	}
	if mesh := b.model.Objects.Mesh.GetDefaultHttpRetryPolicy(); mesh != nil {
		return convertRetry(mesh)
	}
	return b.standardRetry
}

// retry is a VirtualService's policy; nil: no retries.
func (b *Builder) retry(in *networkingapi.HTTPRetry) *routev3.RetryPolicy {
	if in == nil {
		return b.defaultRetry()
	}
	return convertRetry(in)
}

func convertRetry(in *networkingapi.HTTPRetry) *routev3.RetryPolicy {
	if in.GetAttempts() <= 0 {
		return nil
	}
	out := retryPolicy(uint32(in.GetAttempts()))
	if in.GetRetryOn() != "" {
		out.RetryOn, out.RetriableStatusCodes = retryOn(in.GetRetryOn())
	}
	out.PerTryTimeout = in.GetPerTryTimeout()
	if in.GetBackoff() != nil {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: in.GetBackoff()}
	}
	if in.GetRetryRemoteLocalities().GetValue() {
		out.RetryPriority = previousPriorities
	}
	if p := in.GetRetryIgnorePreviousHosts(); p != nil && !p.GetValue() {
		out.RetryHostPredicate = nil
	}
	return out
}

// retryOn splits Istio's list into Envoy's words and the status codes in it.
func retryOn(list string) (words string, codes []uint32) {
	var out []string
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		if code, err := strconv.ParseUint(word, 10, 32); err == nil {
			codes = append(codes, uint32(code))
		} else if word != "" {
			out = append(out, word)
		}
	}
	if len(codes) > 0 && !slices.Contains(out, retriableStatus) {
		out = append(out, retriableStatus)
	}
	return strings.Join(out, ","), codes
}
