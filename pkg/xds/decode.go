package xds

import (
	"errors"
	"fmt"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The types that a node subscribes to.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
)

// Decode turns the resources of a response into a delta. rejected maps the names
// of those that cannot be used to the reason; they are not in the delta.
func Decode(typeURL string, resources []*discovery.Resource, removed []string) (delta mesh.Delta, rejected map[string]error) {
	rejected = map[string]error{}
	for _, r := range resources {
		if err := decodeInto(&delta, typeURL, r); err != nil {
			rejected[r.GetName()] = err
		}
	}
	switch typeURL {
	case AddressType:
		delta.RemovedAddresses = removed
	case AuthorizationType:
		delta.RemovedPolicies = removed
	}
	return delta, rejected
}

func decodeInto(delta *mesh.Delta, typeURL string, r *discovery.Resource) error {
	if got := r.GetResource().GetTypeUrl(); got != typeURL {
		return fmt.Errorf("it is a %q in a response of %q", got, typeURL)
	}
	b := r.GetResource().GetValue()
	switch typeURL {
	case AddressType:
		var a workload.Address
		if err := proto.Unmarshal(b, &a); err != nil {
			return err
		}
		switch t := a.Type.(type) {
		case *workload.Address_Workload:
			w, err := FromWorkload(t.Workload)
			if err != nil {
				return err
			}
			if string(w.UID) != r.GetName() {
				return fmt.Errorf("uid: %q under another name", w.UID)
			}
			delta.Workloads = append(delta.Workloads, w)
			return nil
		case *workload.Address_Service:
			s, err := FromService(t.Service)
			if err != nil {
				return err
			}
			if s.Key.String() != r.GetName() {
				return fmt.Errorf("%s under another name", s.Key)
			}
			delta.Services = append(delta.Services, s)
			return nil
		}
		return errors.New("neither a workload nor a service")
	case AuthorizationType:
		var a security.Authorization
		if err := proto.Unmarshal(b, &a); err != nil {
			return err
		}
		p, err := FromAuthorization(&a)
		if err != nil {
			return err
		}
		if p.Key() != r.GetName() {
			return fmt.Errorf("%s under another name", p.Key())
		}
		delta.Policies = append(delta.Policies, p)
		return nil
	}
	return fmt.Errorf("type %q was not asked for", typeURL)
}
