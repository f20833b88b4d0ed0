package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
)

// bareServer sends what it is told to all streams, and takes what they answer: the
// least that a server of grpc-go can do. It is told on its standard input.
type bareServer struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	mu   sync.Mutex
	next chan struct{} // closes with the next message
	data []byte
}

func (s *bareServer) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ended := make(chan error, 1)
	go func() {
		for {
			var m raw
			if err := stream.RecvMsg(&m); err != nil {
				ended <- err
				return
			}
		}
	}()
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	for _, typeURL := range []string{authorizationType, addressType} { // that the client has it
		if err := stream.SendMsg(&raw{hello(typeURL)}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-next:
		case err := <-ended:
			return err
		}
		s.mu.Lock()
		data := s.data
		next = s.next
		s.mu.Unlock()
		if err := stream.SendMsg(&raw{data}); err != nil {
			return err
		}
	}
}

func (s *bareServer) send(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = data
	close(s.next)
	s.next = make(chan struct{})
}

// bare is the process: it listens, with the product's options, until its input ends.
func bare(_ context.Context, args []string) error {
	address, roots := args[0], args[1]
	certificate := identitytest.SelfSigned(serverName)
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600); err != nil {
		return err
	}
	s := &bareServer{next: make(chan struct{})}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})),
		grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxConcurrentStreams(64), grpc.ReadBufferSize(0), grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(server, s)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		defer server.Stop()
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			if data, err := hex.DecodeString(strings.TrimSpace(lines.Text())); err == nil {
				s.send(data)
			}
		}
	}()
	fmt.Println("listening")
	return server.Serve(l)
}
