package proxyconfig

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// Secrets writes the certificates that a proxy holds.
func (d *Dump) Secrets(out io.Writer, format string, now time.Time) error {
	states := map[string][]value{}
	var all []value
	order := []string{"ACTIVE", "WARMING"}
	for i, lists := range [][]string{{"dynamic_active_secrets", "static_secrets"}, {"dynamic_warming_secrets"}} {
		states[order[i]] = d.entries("SecretsConfigDump", lists...)
		all = append(all, inner(states[order[i]], "secret")...)
	}
	if format != document.Short {
		return write(out, format, all, func() message { return &tlsv3.Secret{} })
	}
	if len(all) == 0 {
		fmt.Fprintln(out, "No secret items to show.")
		return nil
	}
	w := table(out, 5)
	fmt.Fprintln(w, "RESOURCE NAME\tTYPE\tSTATUS\tVALID CERT\tSERIAL NUMBER\tNOT AFTER\tNOT BEFORE")
	for _, state := range order {
		for _, s := range states[state] {
			name := cmp.Or(document.Text(s, "name"), document.Text(s, "secret", "name"))
			kind, chain := "Cert Chain", certificates(document.At(s, "secret", "tls_certificate", "certificate_chain"))
			if roots := document.At(s, "secret", "validation_context", "trusted_ca"); roots != nil {
				kind, chain = "CA", certificates(roots)
			}
			if len(chain) == 0 {
				fmt.Fprintf(w, "%s\t\t%s\tfalse\t\t\t\n", name, state)
			}
			for i, c := range chain {
				if i > 0 && kind == "Cert Chain" {
					break // the leaf's line stands for what it chains to
				}
				valid := now.After(c.NotBefore) && now.Before(c.NotAfter)
				fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%032x\t%s\t%s\n", name, kind, state, valid, c.SerialNumber, c.NotAfter.UTC().Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339))
			}
		}
	}
	return w.Flush()
}

// certificates are those of a data source with PEM in it.
func certificates(source any) (out []*x509.Certificate) {
	text := []byte(document.Text(source, "inline_string"))
	if raw := document.Text(source, "inline_bytes"); raw != "" {
		text, _ = base64.StdEncoding.DecodeString(raw) // what cannot be read is no certificate
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}
