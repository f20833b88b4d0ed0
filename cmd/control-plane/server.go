package main

import (
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
)

// maxRequest bounds one request: a reconnecting agent names all that it holds, at some
// ninety bytes each.
const maxRequest = 16 << 20

const (
	// window is how much of a stream, or a connection, may come before it is asked for:
	// the least that gRPC takes.
	window = 64 << 10
	// beginning bounds what clients make the server hold that have come and not been
	// told yet what they lack.
	beginning = 64 << 20
	// maxHeaders bounds a call's: they are a token and a few names.
	maxHeaders = 64 << 10
	// idleAfter is how long a connection stays on which nothing is called.
	idleAfter = 5 * time.Minute
)

// newEntrance is the door by which agents and waypoints come in.
func newEntrance(changes *push.Log) (*door.Door, error) {
	return door.New(door.Options{
		Turns: 32 + 48*runtime.GOMAXPROCS(0), Memory: beginning,
		// What a stream says first is held as it came, and once more to be read.
		Size:    func() int64 { return window + 2*changes.Naming() },
		Crowded: collector(),
	})
}

// newServer is the server of xDS and certificates, with nothing to serve yet.
func newServer(entrance *door.Door, serving *servingCertificate) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(entrance.Credentials(credentials.NewTLS(serving.config()))),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if !strings.HasPrefix(info.FullMethod, push.Service) {
				door.Pass(stream.Context())
			}
			return handle(service, stream)
		}),
		grpc.ForceServerCodecV2(push.Codec()),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(64),
		// There are thousands of connections, of which most say nothing most of the time:
		// TLS has a buffer of its own, and what is not asked for yet must not grow.
		grpc.ReadBufferSize(0), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: idleAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}
