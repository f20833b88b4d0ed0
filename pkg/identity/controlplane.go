package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/structpb"
	ca "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// ControlPlaneTLS is the configuration of a connection to the control plane.
// The file of roots is read at each handshake, so that a replaced root is seen.
func ControlPlaneTLS(rootFile, serverName string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         serverName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies with the roots of the moment
		VerifyConnection: func(state tls.ConnectionState) error {
			b, err := os.ReadFile(rootFile)
			if err != nil {
				return fmt.Errorf("control plane's root certificate: %w", err)
			}
			options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: serverName}
			if !options.Roots.AppendCertsFromPEM(b) {
				return fmt.Errorf("control plane's root certificate: %s holds none", rootFile)
			}
			if len(state.PeerCertificates) == 0 {
				return errors.New("control plane sent no certificate")
			}
			for _, c := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			_, err = state.PeerCertificates[0].Verify(options)
			return err
		},
	}
}

// Token is the credential of each call: a bearer token, read from its file each
// time since it is replaced, and the cluster's name.
type Token struct {
	File, Cluster string
}

var _ credentials.PerRPCCredentials = Token{}

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (t Token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	md := map[string]string{"clusterid": t.Cluster}
	if t.File == "" {
		return md, nil
	}
	b, err := os.ReadFile(t.File)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	md["authorization"] = "Bearer " + strings.TrimSpace(string(b))
	return md, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials]: a token
// never travels in the clear.
func (Token) RequireTransportSecurity() bool { return true }

// How a connection to the control plane is kept: what lies silent is tried after
// half a minute, and a control plane that comes back is found within 15 s (gRPC's own
// limit is two minutes).
const (
	keepAliveAfter = 30 * time.Second
	keepAliveWait  = 20 * time.Second
	redialAtMost   = 15 * time.Second
	// connectWithin bounds an attempt: after its restart a control plane takes its
	// thousands of agents in one after the other, and who does not wait starts anew. One
	// that is not there at all is given up after reachWithin.
	connectWithin = 20 * time.Second
	reachWithin   = 5 * time.Second
	// writeSize is how much is written at once: the other end keeps a buffer of the size
	// of the largest TLS record that it saw, for each of its thousands of connections.
	writeSize = 4 << 10
)

// Dial returns a connection to the control plane for xDS and certificates; it
// connects when first used, and again when lost. Close it.
func Dial(address, serverName, rootFile string, token Token) (*grpc.ClientConn, error) {
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 100*time.Millisecond, redialAtMost
	dialer := &net.Dialer{Timeout: reachWithin}
	conn, err := grpc.NewClient(address,
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) }),
		grpc.WithTransportCredentials(credentials.NewTLS(ControlPlaneTLS(rootFile, serverName))),
		grpc.WithPerRPCCredentials(token),
		grpc.WithNoProxy(), // a proxy of the environment is not for the mesh
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: connectWithin}),
		grpc.WithWriteBufferSize(writeSize),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAliveAfter, Timeout: keepAliveWait}),
	)
	if err != nil {
		return nil, fmt.Errorf("control plane at %s: %w", address, err)
	}
	return conn, nil
}

// Client asks Istio's certificate service.
type Client struct {
	service ca.IstioCertificateServiceClient
	own     bool
}

// NewClient asks over conn, which carries the credentials, on behalf of
// identities that have a pod on the caller's node: it is a node agent's.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{service: ca.NewIstioCertificateServiceClient(conn)}
}

// NewOwnClient asks over conn for the identity that the credentials prove, and
// for no other: it is a waypoint's. A certificate of another identity is refused
// when it comes.
func NewOwnClient(conn grpc.ClientConnInterface) *Client {
	return &Client{service: ca.NewIstioCertificateServiceClient(conn), own: true}
}

// Sign implements [CA].
func (c *Client) Sign(ctx context.Context, id mesh.Identity, csr []byte, ttl time.Duration) ([]byte, error) {
	var metadata *structpb.Struct
	if !c.own {
		var err error
		if metadata, err = structpb.NewStruct(map[string]any{"ImpersonatedIdentity": id.String()}); err != nil {
			return nil, err
		}
	}
	response, err := c.service.CreateCertificate(ctx, &ca.IstioCertificateRequest{
		Csr: string(csr), ValidityDuration: int64(ttl.Seconds()), Metadata: metadata,
	})
	if err != nil {
		return nil, err
	}
	return []byte(strings.Join(response.GetCertChain(), "\n")), nil
}
