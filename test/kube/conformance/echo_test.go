package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// echoImage is the suite's echo server under the reference that its manifests name:
// Istio's echo programs, and a certificate for the port with TLS.
func echoImage(dir string) (string, error) {
	server, err := cluster.Part("server")
	if err != nil {
		return "", err
	}
	client, err := cluster.Part("client")
	if err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	files := map[string]string{"/usr/local/bin/server": server, "/usr/local/bin/client": client}
	for name, block := range map[string]*pem.Block{"cert.crt": {Type: "CERTIFICATE", Bytes: der}, "cert.key": {Type: "PRIVATE KEY", Bytes: private}} {
		files["/"+name] = filepath.Join(dir, name)
		if err := os.WriteFile(files["/"+name], pem.EncodeToMemory(block), 0o600); err != nil {
			return "", err
		}
	}
	archive := filepath.Join(dir, "echo-advanced.tar")
	return archive, cluster.Archive{Files: files, Images: map[string][]string{image: {"/usr/local/bin/server"}}}.Write(archive)
}
