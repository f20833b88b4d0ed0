package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/fairlead-mesh/fairlead/deploy/images/oci"
)

// webRoots is the file of the web's certificate authorities (Mozilla's list, in the
// pinned module's version) where Go and Envoy's configurations look for it. Roots
// that are trusted with a constraint only stay out: a file cannot say it.
func webRoots() oci.File {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // to memory
		}
	}
	return oci.File{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Content: all.Bytes()}
}
