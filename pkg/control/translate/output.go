package translate

import (
	"errors"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Options is what the objects do not say.
type Options struct {
	// ClusterID is the first part of workloads' names, "Kubernetes" by custom.
	ClusterID string
	// Network is the network of the cluster's pods and services, "" by default.
	Network string
}

func (o Options) validate() error {
	if o.ClusterID == "" {
		return errors.New("translate: Options.ClusterID is empty: give the cluster's id, such as Kubernetes")
	}
	return nil
}

// Output is everything that follows from the objects.
type Output struct {
	// Addresses are workloads and services, sorted by AddressName.
	Addresses []*workloadapi.Address
	// Policies are sorted by PolicyName.
	Policies []*securityapi.Authorization
	// Model is the same state for the translation of what waypoints are sent.
	Model *model.Model
	// Status is sorted by object.
	Status []status.Status
	// Changes is what of Addresses is other than in the output before; nil: it may be
	// anything, and of Policies too.
	Changes *Changes
	// Denied counts the refused security objects for which a denial was made.
	Denied int
}

// Changes are addresses that are new or others, and the names of those that are gone.
type Changes struct {
	Addresses []*workloadapi.Address
	Gone      []string
}

// AddressName is the resource name of a workload (its uid) or a service
// ("namespace/hostname").
func AddressName(a *workloadapi.Address) string {
	switch t := a.GetType().(type) {
	case *workloadapi.Address_Workload:
		return t.Workload.GetUid()
	case *workloadapi.Address_Service:
		return serviceName(t.Service)
	}
	return ""
}

func serviceName(s *workloadapi.Service) string { return s.GetNamespace() + "/" + s.GetHostname() }

// PolicyName is the resource name of a policy, "namespace/name".
func PolicyName(p *securityapi.Authorization) string { return p.GetNamespace() + "/" + p.GetName() }
