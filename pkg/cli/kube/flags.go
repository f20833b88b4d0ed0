// Package kube is the command line's way to a cluster: the flags that istioctl's
// users know, objects of any kind as they are stored, and ports of pods.
//
// Objects are unstructured here: commands that want types decode what they read, so
// that a start of the binary does not pay for the schemes of all API groups.
//
// For cmd/fairlead and the packages under pkg/cli and pkg/install.
package kube

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Flags say which cluster is meant, and which namespace.
type Flags struct {
	// Kubeconfig is a file; empty: $KUBECONFIG, then ~/.kube/config, then the pod's own account.
	Kubeconfig string
	// Context is one of the file's; empty: its current one.
	Context string
	// Namespace is what -n says; empty: the context's, else default.
	Namespace string
	// IstioNamespace is where the control plane runs.
	IstioNamespace string
	// Impersonate is a user to act as, ImpersonateGroups are its groups.
	Impersonate       string
	ImpersonateGroups []string
}

// DefaultIstioNamespace is where the control plane runs unless told otherwise.
const DefaultIstioNamespace = "istio-system"

// Bind adds the flags, named as istioctl's.
func (f *Flags) Bind(flags *pflag.FlagSet) {
	flags.StringVarP(&f.Kubeconfig, "kubeconfig", "c", "", "Kubernetes configuration file")
	flags.StringVar(&f.Context, "context", "", "Kubernetes configuration context")
	flags.StringVarP(&f.Namespace, "namespace", "n", "", "Kubernetes namespace")
	flags.StringVarP(&f.IstioNamespace, "istioNamespace", "i", DefaultIstioNamespace, "Namespace of the control plane")
	flags.StringVar(&f.Impersonate, "as", "", "Username to impersonate for the operation")
	flags.StringArrayVar(&f.ImpersonateGroups, "as-group", nil, "Group to impersonate for the operation; may be repeated")
}

// Limits of calls to the API server: a command reads many kinds at once and ends.
const (
	clientQPS   = 100
	clientBurst = 200
)

func (f *Flags) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.Context}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
}

// Config is how the API server is reached.
func (f *Flags) Config() (*rest.Config, error) {
	config, err := f.loader().ClientConfig()
	if err != nil {
		if clientcmd.IsEmptyConfig(err) {
			err = errors.New("no cluster is configured: give --kubeconfig FILE, or set KUBECONFIG")
		}
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	config.QPS, config.Burst = clientQPS, clientBurst
	config.UserAgent = "fairlead"
	config.Impersonate = rest.ImpersonationConfig{UserName: f.Impersonate, Groups: f.ImpersonateGroups}
	return config, nil
}

// DefaultNamespace is the one that -n says, else the context's, else default.
func (f *Flags) DefaultNamespace() string {
	if f.Namespace != "" {
		return f.Namespace
	}
	if ns, _, err := f.loader().Namespace(); err == nil && ns != "" {
		return ns
	}
	return "default"
}

// Target reads "pod", "pod.namespace", "kind/name" or "kind/name.namespace"; the
// kind is empty for a pod.
func (f *Flags) Target(text string) (kind, name, namespace string) {
	if before, after, ok := strings.Cut(text, "/"); ok {
		kind, text = strings.ToLower(before), after
	}
	name, namespace = text, f.Namespace
	// Names of pods hold no dots in practice, as hosts' names of namespaces cannot.
	if before, after, ok := cutLast(text, "."); ok && namespace == "" {
		name, namespace = before, after
	}
	if namespace == "" {
		namespace = f.DefaultNamespace()
	}
	return kind, name, namespace
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
