package streaminfo

// Flags are Envoy's response flags.
type Flags uint32

// The flags that can occur here, in the order in which Envoy lists them.
const (
	FailedLocalHealthCheck Flags = 1 << iota
	NoHealthyUpstream
	UpstreamRequestTimeout
	LocalReset
	UpstreamRemoteReset
	UpstreamConnectionFailure
	UpstreamConnectionTermination
	UpstreamOverflow
	NoRouteFound
	DelayInjected
	FaultInjected
	RateLimited
	UnauthorizedExternalService
	RateLimitServiceError
	DownstreamConnectionTermination
	UpstreamRetryLimitExceeded
	StreamIdleTimeout
	InvalidEnvoyRequestHeaders
	DownstreamProtocolError
	UpstreamMaxStreamDurationReached
	ResponseFromCache
	NoFilterConfigFound
	DurationTimeout
	UpstreamProtocolError
	NoClusterFound
	OverloadManager
	DNSResolutionFailed
)

var flagNames = []string{"LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF"}

var longFlagNames = []string{
	"FailedLocalHealthCheck", "NoHealthyUpstream", "UpstreamRequestTimeout", "LocalReset", "UpstreamRemoteReset",
	"UpstreamConnectionFailure", "UpstreamConnectionTermination", "UpstreamOverflow", "NoRouteFound", "DelayInjected",
	"FaultInjected", "RateLimited", "UnauthorizedExternalService", "RateLimitServiceError",
	"DownstreamConnectionTermination", "UpstreamRetryLimitExceeded", "StreamIdleTimeout", "InvalidEnvoyRequestHeaders",
	"DownstreamProtocolError", "UpstreamMaxStreamDurationReached", "ResponseFromCacheFilter", "NoFilterConfigFound",
	"DurationTimeout", "UpstreamProtocolError", "NoClusterFound", "OverloadManagerTerminated", "DnsResolutionFailed",
}

// Append appends the flags' short names joined by commas, nothing for none.
func (f Flags) Append(dst []byte) []byte { return f.join(dst, flagNames) }

// AppendLong is as Append, with the long names.
func (f Flags) AppendLong(dst []byte) []byte { return f.join(dst, longFlagNames) }

func (f Flags) join(dst []byte, names []string) []byte {
	at := len(dst)
	for i, name := range names {
		if f&(1<<i) != 0 {
			if len(dst) > at {
				dst = append(dst, ',')
			}
			dst = append(dst, name...)
		}
	}
	return dst
}

// String is the flags' short names joined by commas, or "-".
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	return string(f.Append(nil))
}
