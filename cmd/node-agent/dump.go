package main

import (
	"crypto/x509"
	"encoding/pem"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/ztunnel"
)

// dump is /config_dump.
func dump(c config, s *store.Snapshot, certificates []identity.Status, proxies map[string]*ztunnel.Proxy) *admin.Dump {
	d := admin.NewDump(s.Workloads(), s.Services(), s.AllPolicies())
	for _, status := range certificates {
		d.Certificates = append(d.Certificates, certificate(status))
	}
	for uid, p := range proxies {
		d.WorkloadState[uid] = podState(c, p)
	}
	d.Config = map[string]string{
		"node": c.node, "clusterId": c.clusterID, "network": c.network, "trustDomain": c.trustDomain,
		"xdsAddress": c.xdsAddress, "caAddress": c.caAddress, "instance": c.instance,
	}
	d.Version = map[string]string{"version": telemetry.Version}
	return d
}

func certificate(s identity.Status) admin.Certificate {
	out := admin.Certificate{Identity: s.Identity.String(), State: "Initializing", CertChain: []admin.Cert{}, NextRenewal: admin.Timestamp(s.Next)}
	if s.Cert != nil {
		out.State = "Available"
		out.CertChain = certs(s.Cert.Chain)
	}
	if s.Failure != nil {
		out.State += ": " + s.Failure.Error()
	}
	out.RootCerts = certs(s.Roots)
	return out
}

func certs(all []*x509.Certificate) []admin.Cert {
	out := []admin.Cert{}
	for _, c := range all {
		out = append(out, admin.Cert{
			PEM:          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
			SerialNumber: c.SerialNumber.String(), ValidFrom: admin.Timestamp(c.NotBefore), ExpirationTime: admin.Timestamp(c.NotAfter),
		})
	}
	return out
}

func podState(c config, p *ztunnel.Proxy) admin.PodState {
	info := p.Info()
	state := admin.PodState{State: "Up", Info: admin.PodInfo{Name: info.Name, Namespace: info.Namespace, TrustDomain: c.trustDomain, ServiceAccount: info.ServiceAccount}}
	state.Connections.Inbound, state.Connections.Outbound = []admin.Connection{}, []admin.Connection{}
	for _, l := range p.Connections() {
		conn := admin.Connection{Source: l.Source.String(), OriginalDestination: l.Original.String(), ActualDestination: l.Actual.String(), Protocol: l.Protocol}
		if l.Direction == telemetry.Inbound {
			state.Connections.Inbound = append(state.Connections.Inbound, conn)
		} else {
			state.Connections.Outbound = append(state.Connections.Outbound, conn)
		}
	}
	return state
}
