package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// asking bounds what is asked of the API with the agent down.
const asking = 5 * time.Second

// Note is what the agent writes down of the cluster's namespaces: their labels.
type Note struct {
	Namespaces map[string]map[string]string `json:"namespaces"`
}

// decide says with the agent down whether a pod is to be captured, and why.
func (c *Config) decide(ctx context.Context, box podwatch.Sandbox) (bool, string) {
	captured, why, err := c.askAPI(ctx, box)
	if err == nil {
		return captured, why
	}
	labels, noted, nerr := c.noted(box.Namespace)
	if !noted {
		return true, fmt.Sprintf("neither the Kubernetes API nor the agent's note says that it is not: %v", errors.Join(err, nerr))
	}
	captured, why = c.rule().Captures(podwatch.Facts{Namespace: box.Namespace}, labels)
	return captured, why + ", as the agent noted"
}

func (c *Config) rule() podwatch.Rule {
	return podwatch.Rule{Excluded: c.ExcludedNamespaces, Injection: c.Injection}
}

func (c *Config) askAPI(ctx context.Context, box podwatch.Sandbox) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	api, err := c.client()
	if err != nil {
		return false, "", err
	}
	var pod kube.Pod
	if err := api.Get(ctx, "/api/v1/namespaces/"+box.Namespace+"/pods/"+box.Name, &pod); err != nil {
		return false, "", err
	}
	var namespace kube.Namespace
	if err := api.Get(ctx, "/api/v1/namespaces/"+box.Namespace, &namespace); err != nil {
		return false, "", err
	}
	captured, why := c.rule().Captures(podwatch.FactsOf(&pod), namespace.Labels)
	return captured, why, nil
}

// client asks the API as the agent's account.
func (c *Config) client() (*kube.Client, error) {
	b, err := os.ReadFile(c.Credentials)
	if err != nil {
		return nil, err
	}
	var how kube.Config
	if err := json.Unmarshal(b, &how); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Credentials, err)
	}
	return kube.New(how)
}

// noted returns a namespace's labels from the agent's note.
func (c *Config) noted(namespace string) (map[string]string, bool, error) {
	b, err := os.ReadFile(c.Note)
	if err != nil {
		return nil, false, err
	}
	var n Note
	if err := json.Unmarshal(b, &n); err != nil {
		return nil, false, fmt.Errorf("%s: %w", c.Note, err)
	}
	labels, ok := n.Namespaces[namespace]
	return labels, ok, nil
}

// writeJSON replaces a file at once, for root alone.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(path, b, 0o600)
}

// replace writes a file beside the old one and renames it, so that whoever reads
// finds one or the other, whole.
func replace(path string, b []byte, mode fs.FileMode) error {
	return replaceFrom(path, bytes.NewReader(b), mode)
}

// replaceFrom is replace with what r reads.
func replaceFrom(path string, r io.Reader, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".fairlead-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
