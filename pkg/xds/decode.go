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

// Decoded is what a response came to.
type Decoded struct {
	Delta mesh.Delta
	// Rejected maps the names of those that cannot be used to the reason. They
	// are not in Delta.
	Rejected map[string]error
	// StandIns are policies that deny all, in place of rejected ones. They are for
	// an Applier that holds no earlier form of the policy.
	StandIns []*mesh.Policy
}

// Decode turns the resources of a response into a delta.
func Decode(typeURL string, resources []*discovery.Resource, removed []string) Decoded {
	d := Decoded{Rejected: map[string]error{}}
	shared := newInterner()
	for _, r := range resources {
		if err := d.add(typeURL, r, shared); err != nil {
			d.Rejected[r.GetName()] = err
		}
	}
	switch typeURL {
	case AddressType:
		d.Delta.RemovedAddresses = removed
	case AuthorizationType:
		d.Delta.RemovedPolicies = removed
	}
	return d
}

func (d *Decoded) add(typeURL string, r *discovery.Resource, shared *interner) error {
	if typeURL == AuthorizationType {
		return d.addPolicy(r)
	}
	if err := checkType(typeURL, r); err != nil {
		return err
	}
	var a workload.Address
	if err := proto.Unmarshal(r.GetResource().GetValue(), &a); err != nil {
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
		shared.workload(w, r.GetName())
		d.Delta.Workloads = append(d.Delta.Workloads, w)
		return nil
	case *workload.Address_Service:
		s, err := FromService(t.Service)
		if err != nil {
			return err
		}
		if s.Key.String() != r.GetName() {
			return fmt.Errorf("%s under another name", s.Key)
		}
		shared.service(s)
		d.Delta.Services = append(d.Delta.Services, s)
		return nil
	}
	return errors.New("neither a workload nor a service")
}

func (d *Decoded) addPolicy(r *discovery.Resource) error {
	a, p, err := decodePolicy(r)
	if err == nil {
		d.Delta.Policies = append(d.Delta.Policies, p)
		return nil
	}
	if p := standIn(r.GetName(), a); p != nil {
		d.StandIns = append(d.StandIns, p)
	}
	return err
}

// decodePolicy returns the message even where it is no policy that we can hold,
// or nil where not even that can be read.
func decodePolicy(r *discovery.Resource) (*security.Authorization, *mesh.Policy, error) {
	if err := checkType(AuthorizationType, r); err != nil {
		return nil, nil, err
	}
	a := &security.Authorization{}
	if err := proto.Unmarshal(r.GetResource().GetValue(), a); err != nil {
		return nil, nil, err
	}
	p, err := FromAuthorization(a)
	if err != nil {
		return a, nil, err
	}
	if p.Key() != r.GetName() {
		return a, nil, fmt.Errorf("%s under another name", p.Key())
	}
	return a, p, nil
}

func checkType(typeURL string, r *discovery.Resource) error {
	if got := r.GetResource().GetTypeUrl(); got != typeURL {
		return fmt.Errorf("it is a %q in a response of %q", got, typeURL)
	}
	return nil
}
