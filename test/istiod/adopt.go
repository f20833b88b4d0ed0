package main

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// adopt finds what an earlier mirror brought to this API server. It is looked at anew,
// and goes where the lab does not have it any more.
func (m *mirror) adopt(ctx context.Context) error {
	lists, err := m.clients.typed.Discovery().ServerPreferredResources()
	if err != nil {
		return err
	}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "patch", "delete"}}, lists) {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, resource := range list.APIResources {
			if gv.Group == "apiextensions.k8s.io" || gv.Group == "admissionregistration.k8s.io" || resource.Name == "namespaces" {
				continue // what was installed, and what may stay
			}
			found, err := m.clients.dynamic.Resource(gv.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, o := range found.Items {
				if slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == manager }) {
					m.held[keyOf(&o)] = held{object: &o, uid: o.GetAnnotations()[uidAnnotation]}
				}
			}
		}
	}
	return nil
}
