package hcm

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const xfcc = "x-forwarded-client-cert"

// clientCert makes X-Forwarded-Client-Cert as the configuration asks: what a client
// says of itself there is kept only where it came over mutual TLS and we were told to.
func (m *Manager) clientCert(info *streaminfo.Info, r *message.Request) {
	if m.forwardCert == hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY {
		return
	}
	mutual := info.TLS != nil && len(info.TLS.PeerCertificates) > 0 && !info.Tunnelled
	if !mutual || m.forwardCert == hcmv3.HttpConnectionManager_SANITIZE {
		r.Fields.Del(xfcc)
		return
	}
	if m.forwardCert == hcmv3.HttpConnectionManager_FORWARD_ONLY {
		return
	}
	element := m.certElement(info)
	if m.forwardCert == hcmv3.HttpConnectionManager_APPEND_FORWARD {
		if v, ok := r.Fields.Joined(xfcc); ok && v != "" {
			element = v + "," + element
		}
	}
	r.Fields.Set(xfcc, element)
}

// certElement describes the client's certificate in Envoy's form.
func (m *Manager) certElement(info *streaminfo.Info) string {
	var parts []string
	for _, u := range m.localURIs(info) {
		parts = append(parts, "By="+u)
	}
	peer := info.TLS.PeerCertificates[0]
	sum := sha256.Sum256(peer.Raw)
	parts = append(parts, "Hash="+hex.EncodeToString(sum[:]))
	d := m.certDetails
	if d.GetSubject().GetValue() {
		parts = append(parts, `Subject="`+strings.ReplaceAll(peer.Subject.String(), `"`, `\"`)+`"`)
	}
	if d.GetUri() {
		for _, u := range peer.URIs {
			parts = append(parts, "URI="+u.String())
		}
	}
	if d.GetDns() {
		for _, n := range peer.DNSNames {
			parts = append(parts, "DNS="+n)
		}
	}
	return strings.Join(parts, ";")
}

func (m *Manager) localURIs(info *streaminfo.Info) []string {
	if info.LocalURISAN == "" {
		return nil
	}
	return []string{info.LocalURISAN}
}
