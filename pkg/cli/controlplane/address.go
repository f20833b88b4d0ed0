// Package controlplane asks a control plane that is no pod of the cluster, by its address:
// by the discovery service, as istioctl does, with the same rights.
//
// For cmd/fairlead, the packages under pkg/cli and tests.
package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
)

const (
	// defaultPort is where a control plane serves discovery.
	defaultPort = "15012"
	// patience bounds an answer, and maxAnswer its size.
	patience  = 30 * time.Second
	maxAnswer = 256 << 20
)

// Flags say where a control plane is that is no pod of the cluster.
type Flags struct {
	// Address is host:port, or a host; empty: the cluster's pods are asked.
	Address string
	// Authority is the name that its certificate must have; empty: istiod.NAMESPACE.svc.
	Authority string
	// CertDir has the mesh's roots, in root-cert.pem; empty: the cluster's ConfigMap.
	CertDir string
}

// Bind adds the flags, named as istioctl's.
func (f *Flags) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.Address, "xds-address", "", "Address of a control plane that is no pod of the cluster, host:port (the port is "+defaultPort+" if not given)")
	flags.StringVar(&f.Authority, "authority", "", "Name that the certificate at --xds-address must have (default istiod.<istioNamespace>.svc)")
	flags.StringVar(&f.CertDir, "cert-dir", "", "Directory with the mesh's roots for --xds-address, root-cert.pem (default: the ConfigMap "+rootcert.Name+")")
}

// Given tells whether there is an address to ask.
func (f *Flags) Given() bool { return f.Address != "" }

// Elsewhere says how a control plane is asked that the cluster has no pod of.
const Elsewhere = "one that runs elsewhere (profile remote) is asked with --xds-address HOST"

// Answer is what a control plane says of itself and its clients.
type Answer struct {
	// Identity is the replica's that was asked, Version its build's.
	Identity, Version string
	// Clients are those that are connected to this replica.
	Clients []push.Sync
}

// Ask asks the control plane at the address, as who may have tokens made for the service
// account "default" of its namespace: that is the right to see what it knows.
func (f *Flags) Ask(ctx context.Context, c *kube.Client, istioNamespace string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	roots, err := f.roots(ctx, c, istioNamespace)
	if err != nil {
		return Answer{}, err
	}
	bearer, err := newToken(ctx, c, istioNamespace)
	if err != nil {
		return Answer{}, err
	}
	authority := f.Authority
	if authority == "" {
		authority = "istiod." + istioNamespace + ".svc"
	}
	address := f.Address
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, defaultPort)
	}
	a, err := ask(ctx, address, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: authority, RootCAs: roots}, bearer, istioNamespace)
	if err != nil {
		return a, fmt.Errorf("ask the control plane at %s: %w", address, err)
	}
	return a, nil
}

// ask is one question and its answer.
func ask(ctx context.Context, address string, config *tls.Config, bearer, istioNamespace string) (a Answer, err error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithNoProxy(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.WaitForReady(false)))
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer))
	if err != nil {
		return a, plainly(err)
	}
	_ = stream.Send(&discovery.DiscoveryRequest{ // why it fails, if it does, is received
		TypeUrl: push.ClientsType, Node: &core.Node{Id: "fairlead~0.0.0.0~fairlead." + istioNamespace + "~" + istioNamespace + ".svc.cluster.local"},
	})
	response, err := stream.Recv()
	if err != nil {
		return a, plainly(err)
	}
	var who struct {
		ID   string
		Info struct{ Version string }
	}
	if err := json.Unmarshal([]byte(response.GetControlPlane().GetIdentifier()), &who); err != nil {
		return a, fmt.Errorf("it does not say who it is: %w", err)
	}
	a.Identity, a.Version = who.ID, who.Info.Version
	if len(response.GetResources()) != 1 {
		return a, fmt.Errorf("it answers with %d parts instead of one", len(response.GetResources()))
	}
	if err := json.Unmarshal(response.GetResources()[0].GetValue(), &a.Clients); err != nil {
		return a, fmt.Errorf("its answer cannot be read: %w", err)
	}
	return a, nil
}

// plainly is an error of gRPC without its own words around it.
func plainly(err error) error {
	s := status.Convert(err)
	if s.Code() == codes.Unauthenticated {
		return fmt.Errorf("it does not take the token that the cluster has made, or is that of another cluster: %s", s.Message())
	}
	return errors.New(s.Message())
}

// roots are what the control plane's certificate must come from.
func (f *Flags) roots(ctx context.Context, c *kube.Client, istioNamespace string) (*x509.CertPool, error) {
	var text []byte
	from := ""
	if f.CertDir != "" {
		var err error
		from = filepath.Join(f.CertDir, rootcert.Key)
		if text, err = os.ReadFile(from); err != nil {
			return nil, fmt.Errorf("--cert-dir: %w", err)
		}
	} else {
		var err error
		from = "ConfigMap " + istioNamespace + "/" + rootcert.Name
		if text, err = storedRoots(ctx, c, istioNamespace); err != nil {
			return nil, err
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate, so a control plane at --xds-address cannot be recognized", from)
	}
	return pool, nil
}
