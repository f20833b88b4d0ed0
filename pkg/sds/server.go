package sds

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// stopTimeout bounds how long streams may go on when the server stops.
const stopTimeout = time.Second

type (
	secretsStream      = secretv3.SecretDiscoveryService_StreamSecretsServer
	deltaSecretsStream = secretv3.SecretDiscoveryService_DeltaSecretsServer
)

// Options of a [Server].
type Options struct {
	// Socket is the path of the Unix socket. Its directory is made, for this user
	// alone; what an earlier run left there is replaced.
	Socket string
	// Identity is whose certificate is served.
	Identity     mesh.Identity
	Certificates Certificates // must be non-nil
	// ControlPlane carries the relayed discovery streams, with credentials of its
	// own for each; nil relays none.
	ControlPlane grpc.ClientConnInterface
	Logger       *slog.Logger // must be non-nil
}

// Server serves secrets and relays discovery to one proxy beside it.
type Server struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer

	o        Options
	grpc     *grpc.Server
	listener net.Listener
}

// Listen binds the socket, which only this user may connect to. Run the server.
func Listen(o Options) (*Server, error) {
	if o.Certificates == nil || o.Logger == nil || o.Socket == "" || o.Identity.IsZero() {
		return nil, errors.New("sds: Socket, Identity, Certificates and Logger must be set")
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("secrets' socket: %w", err)
	}
	if err := os.Remove(o.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secrets' socket: %w", err)
	}
	// Bound under another name and moved: nobody can connect before the mode is set.
	bound := o.Socket + ".new"
	if err := os.Remove(bound); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secrets' socket: %w", err)
	}
	l, err := net.Listen("unix", bound)
	if err != nil {
		return nil, fmt.Errorf("secrets' socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(bound, 0o600), os.Rename(bound, o.Socket)); err != nil {
		return nil, errors.Join(fmt.Errorf("secrets' socket: %w", err), l.Close())
	}
	s := &Server{o: o, listener: l, grpc: grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.MaxRecvMsgSize(maxMessage), grpc.WaitForHandlers(true))}
	secretv3.RegisterSecretDiscoveryServiceServer(s.grpc, s)
	if o.ControlPlane != nil {
		s.grpc.RegisterService(&discoveryService, s)
	}
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stopped := context.AfterFunc(ctx, func() {
		force := time.AfterFunc(stopTimeout, s.grpc.Stop)
		defer force.Stop()
		s.grpc.GracefulStop()
	})
	defer stopped()
	err := s.grpc.Serve(s.listener)
	if removed := os.Remove(s.o.Socket); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}
