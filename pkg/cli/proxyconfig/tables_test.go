package proxyconfig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// secrets is a dump with a certificate and two roots.
func secrets(t *testing.T) []byte {
	t.Helper()
	make := func(serial int64, ca bool) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour).UTC(), NotAfter: time.Now().Add(time.Hour).UTC(), IsCA: ca, BasicConstraintsValid: true,
		}
		if !ca {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/waypoint"}}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump", "dynamic_active_secrets": [
		{"name": "default", "secret": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "default", "tls_certificate": {"certificate_chain": {"inline_bytes": %q}}}},
		{"name": "ROOTCA", "secret": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_bytes": %q}}}}]}]}`,
		encode(make(4711, false)), encode(make(1, true)+make(2, true)))
}

const clusters = `{"cluster_statuses": [
	{"name": "inbound-vip|80|http|a.shop.svc.cluster.local", "host_statuses": [
		{"address": {"envoy_internal_address": {"server_listener_name": "connect_originate", "endpoint_id": "10.0.0.1:8080"}}, "health_status": {"eds_health_status": "HEALTHY"}},
		{"address": {"socket_address": {"address": "10.0.0.2", "port_value": 8080}}, "health_status": {"eds_health_status": "UNHEALTHY", "failed_outlier_check": true}}]},
	{"name": "sds-grpc", "host_statuses": [{"address": {"pipe": {"path": "./socket"}}, "health_status": {"eds_health_status": "HEALTHY"}}]}]}`

func TestSecretsAndEndpoints(t *testing.T) {
	dump := secrets(t)
	d, err := Read(dump)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command string
		raw     []byte
		ours    func(*strings.Builder) error
		want    []string
	}{
		{"secret", dump, func(b *strings.Builder) error { return d.Secrets(b, document.Short, time.Now()) }, []string{
			"default Cert Chain ACTIVE true 00000000000000000000000000001267", "ROOTCA CA ACTIVE true 00000000000000000000000000000001", "ROOTCA CA ACTIVE true 00000000000000000000000000000002",
		}},
		{"endpoint", []byte(clusters), func(b *strings.Builder) error {
			return Endpoints(b, []byte(clusters), EndpointFilter{}, document.Short)
		}, []string{
			"10.0.0.2:8080 UNHEALTHY FAILED inbound-vip|80|http|a.shop.svc.cluster.local",
			"envoy://connect_originate/10.0.0.1:8080 HEALTHY OK inbound-vip|80|http|a.shop.svc.cluster.local", "unix://./socket HEALTHY OK sds-grpc",
		}},
	} {
		var b strings.Builder
		if err := c.ours(&b); err != nil {
			t.Fatal(err)
		}
		got := lines(b.String())
		for _, want := range c.want {
			if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, want) }) {
				t.Errorf("%s has no line %q:\n%s", c.command, want, b.String())
			}
		}
		if istioctl := istioctlFile(); istioctl != "" {
			file := filepath.Join(t.TempDir(), "dump.json")
			if err := os.WriteFile(file, c.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			theirs, err := exec.Command(istioctl, "proxy-config", c.command, "--file", file).CombinedOutput()
			// Of several roots istioctl shows the first; while roots are replaced, all matter.
			if err != nil || slices.ContainsFunc(lines(string(theirs)), func(l string) bool { return !slices.Contains(got, l) }) {
				t.Errorf("%s: %v\nours:\n%s\nistioctl's:\n%s", c.command, err, b.String(), theirs)
			}
		}
	}
	var b strings.Builder
	if err := Endpoints(&b, []byte(clusters), EndpointFilter{Hosts: []string{"b.shop"}}, document.Short); err != nil || len(lines(b.String())) != 1 {
		t.Errorf("of another service: %s %v", b.String(), err)
	}
}

// TestAbout holds that what has nothing to do with a workload's services is left out.
func TestAbout(t *testing.T) {
	d, err := Read([]byte(`{"configs": [{"@type": "x.ClustersConfigDump", "dynamic_active_clusters": [
		{"cluster": {"name": "inbound-vip|80|http|a.shop.svc.cluster.local", "type": "EDS"}}, {"cluster": {"name": "inbound-vip|80|http|b.shop.svc.cluster.local", "type": "EDS"}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := d.About([]string{"a.shop.svc.cluster.local"}).Clusters(&b, ClusterFilter{}, document.Short); err != nil {
		t.Fatal(err)
	}
	if got := lines(b.String()); len(got) != 2 || !strings.HasPrefix(got[1], "a.shop.svc.cluster.local 80 http inbound-vip EDS") {
		t.Errorf("%s", b.String())
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	for _, text := range []string{"", "[]", `{"workloads": []}`} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), "not a configuration dump") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := document.CheckFormat("xml"); err == nil {
		t.Error("xml is a format")
	}
}
