package analyze

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// gateways looks at Istio's Gateways: who serves them, with what certificates, and
// which of them are in each other's way.
func (w *world) gateways() {
	all := w.of(networking, "Gateway")
	for _, g := range all {
		selector := texts(document.At(g.value, "spec", "selector"))
		if len(selector) == 0 {
			continue
		}
		serving := w.selected("", selector)
		if len(serving) == 0 && w.Whole {
			w.reportAt(Error, ReferencedResourceNotFound, g, "spec.selector", "Referenced selector not found: %q", pairs(selector))
		}
		for i, s := range document.List(g.value, "spec", "servers") {
			if name := document.Text(s, "tls", "credentialName"); name != "" {
				w.credential(g, serving, name, fmt.Sprintf("spec.servers[%d].tls.credentialName", i))
			}
		}
		w.conflicts(g, all)
	}
}

// credential looks for a certificate where the gateway's pods would: in their namespace.
func (w *world) credential(g *manifest, serving []workload, name, field string) {
	if !w.Whole {
		return // few people keep secrets in files
	}
	spaces := []string{source.RootNamespace}
	if len(serving) > 0 {
		spaces = nil
		for _, x := range serving {
			spaces = append(spaces, x.namespace)
		}
	}
	slices.Sort(spaces)
	for _, namespace := range slices.Compact(spaces) {
		ref := source.Ref{Kind: "Secret", Namespace: namespace, Name: name}
		secret := w.byRef[ref]
		if secret == nil {
			text := ""
			for _, d := range w.of("", "Secret") {
				if d.Ref.Name == name {
					text = fmt.Sprintf("; one with this name exists in %s, and a gateway reads its own namespace alone", d.Ref.Namespace)
				}
			}
			w.reportAt(Error, ReferencedResourceNotFound, g, field, "Referenced credentialName not found: %q; the gateway looks for secret %s/%s%s", name, namespace, name, text)
			continue
		}
		if !usable(secret) {
			w.reportAt(Error, InvalidCredential, g, field, "The credential referenced by the Gateway %s in namespace %s is invalid, which can cause the traffic not to work as expected.", g.Ref.Name, g.Ref.Namespace)
		}
	}
}

// usable tells whether a secret holds a certificate and its key, under the names of
// Kubernetes or of Istio.
func usable(secret *manifest) bool {
	value := func(key string) []byte {
		if text := document.Text(secret.value, "stringData", key); text != "" {
			return []byte(text)
		}
		raw, err := base64.StdEncoding.DecodeString(document.Text(secret.value, "data", key))
		if err != nil {
			return nil
		}
		return raw
	}
	for _, names := range [][2]string{{"tls.crt", "tls.key"}, {"cert", "key"}} {
		if _, err := tls.X509KeyPair(value(names[0]), value(names[1])); err == nil {
			return true
		}
	}
	return false
}

// conflicts finds Gateways of the same pods with the same port and host.
func (w *world) conflicts(g *manifest, all []*manifest) {
	selector := pairs(texts(document.At(g.value, "spec", "selector")))
	for i, s := range document.List(g.value, "spec", "servers") {
		port, _ := number(document.At(s, "port", "number"))
		for _, h := range document.List(s, "hosts") {
			var others []string
			for _, o := range all {
				if o != g && pairs(texts(document.At(o.value, "spec", "selector"))) == selector && serves(o, port, document.Text(h)) {
					others = append(others, o.Ref.Namespace+"/"+o.Ref.Name)
				}
			}
			if len(others) > 0 {
				w.reportAt(Error, ConflictingGateways, g, fmt.Sprintf("spec.servers[%d]", i), "Conflict with gateways %s (workload selector %s, port %.0f, hosts %s).", strings.Join(others, ","), selector, port, document.Text(h))
			}
		}
	}
}

func serves(g *manifest, port float64, host string) bool {
	for _, s := range document.List(g.value, "spec", "servers") {
		if n, _ := number(document.At(s, "port", "number")); n != port {
			continue
		}
		if slices.ContainsFunc(document.List(s, "hosts"), func(h any) bool { return document.Text(h) == host }) {
			return true
		}
	}
	return false
}
