package sds

import (
	"context"
	"fmt"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// look is how often the roots are compared with those sent: their file is
	// followed by reading it.
	look = 5 * time.Second
	// maxNames bounds what one stream may ask for.
	maxNames = 100
)

// follow sends what a stream asks for, and again what changes, until it ends.
// next returns the names asked for; send is given those that changed. What failed
// is logged and tried again.
func (s *Server) follow(ctx context.Context, next func() (names []string, err error), send func([]secret) error) error {
	requests, ended := make(chan []string), make(chan error, 1)
	go func() { // ends with the stream
		for {
			names, err := next()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- names:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	var names []string
	versions := map[string]string{} // sent, by name
	for {
		changed := s.o.Certificates.Changed()
		found, err := s.secrets(ctx, names)
		if err != nil && ctx.Err() == nil {
			s.o.Logger.Warn("no secret yet for the proxy beside us; trying again", "err", err)
		}
		found = slices.DeleteFunc(found, func(o secret) bool { return versions[o.name] == o.version })
		for _, o := range found {
			versions[o.name] = o.version
		}
		if len(found) > 0 {
			if err := send(found); err != nil {
				return err
			}
		}
		select {
		case names = <-requests:
			if len(names) > maxNames {
				return status.Errorf(codes.ResourceExhausted, "more than %d secrets in one stream", maxNames)
			}
			for _, name := range unknown(names) {
				s.o.Logger.Warn("the proxy beside us asks for a secret that there is not", "name", name)
			}
		case <-changed:
		case <-tick.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// StreamSecrets implements the service.
func (s *Server) StreamSecrets(stream secretsStream) error {
	nonce := 0
	return s.follow(stream.Context(), func() ([]string, error) {
		r, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		s.heard(r.GetErrorDetail().GetMessage())
		return r.GetResourceNames(), nil
	}, func(found []secret) error {
		nonce++
		r := &discovery.DiscoveryResponse{TypeUrl: SecretType, Nonce: fmt.Sprint(nonce), VersionInfo: found[0].version}
		for _, o := range found {
			r.Resources = append(r.Resources, o.packed)
		}
		return stream.Send(r)
	})
}

// DeltaSecrets implements the service.
func (s *Server) DeltaSecrets(stream deltaSecretsStream) error {
	nonce := 0
	var names []string // of the goroutine that receives
	return s.follow(stream.Context(), func() ([]string, error) {
		r, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		s.heard(r.GetErrorDetail().GetMessage())
		names = append(slices.Clone(names), r.GetResourceNamesSubscribe()...)
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(r.GetResourceNamesUnsubscribe(), n) })
		slices.Sort(names)
		names = slices.Compact(names)
		return names, nil
	}, func(found []secret) error {
		nonce++
		r := &discovery.DeltaDiscoveryResponse{TypeUrl: SecretType, Nonce: fmt.Sprint(nonce)}
		for _, o := range found {
			r.Resources = append(r.Resources, &discovery.Resource{Name: o.name, Version: o.version, Resource: o.packed})
		}
		return stream.Send(r)
	})
}

// FetchSecrets implements the service.
func (s *Server) FetchSecrets(ctx context.Context, r *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	found, err := s.secrets(ctx, r.GetResourceNames())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	out := &discovery.DiscoveryResponse{TypeUrl: SecretType}
	for _, o := range found {
		out.Resources, out.VersionInfo = append(out.Resources, o.packed), o.version
	}
	return out, nil
}

// heard takes note of a refusal. What was refused is not sent again before it changes.
func (s *Server) heard(refusal string) {
	if refusal != "" {
		s.o.Logger.Error("the proxy beside us refused a secret", "reason", refusal)
	}
}
