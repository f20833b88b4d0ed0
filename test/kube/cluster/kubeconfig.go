package cluster

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

// kubeconfig writes name.kubeconfig: the certificate of that name at a server. It
// holds the credentials themselves, so that it can be copied to where it is read.
func (a *authority) kubeconfig(name, certificate, server string) error {
	var files [3]string
	for i, f := range []string{"ca.crt", certificate + ".crt", certificate + ".key"} {
		b, err := os.ReadFile(filepath.Join(a.dir, f))
		if err != nil {
			return fmt.Errorf("kubeconfig %s: %w", name, err)
		}
		files[i] = base64.StdEncoding.EncodeToString(b)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: test
  context: {cluster: test, user: %s}
current-context: test
`, server, files[0], certificate, files[1], files[2], certificate)
	if err := os.WriteFile(filepath.Join(a.dir, name+".kubeconfig"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("kubeconfig %s: %w", name, err)
	}
	return nil
}
