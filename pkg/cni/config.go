package cni

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Type is the plugin's name, in the configuration and as a file.
const Type = "fairlead-cni"

// Config is the plugin's entry in the runtime's configuration.
type Config struct {
	types.PluginConf
	// Socket is the agent's, on the node.
	Socket string `json:"socket"`
	// Note is where the agent keeps what the plugin decides by without it.
	Note string `json:"note"`
	// Credentials is where the agent keeps what the plugin asks the API with.
	Credentials string `json:"credentials"`
	// ExcludedNamespaces have no pod in the mesh.
	ExcludedNamespaces []string `json:"excludedNamespaces"`
	// Injection takes the label istio-injection for an opt-in too.
	Injection bool `json:"injection,omitempty"`
}

func parse(stdin []byte) (*Config, error) {
	var c Config
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", Type, err)
	}
	if c.Socket == "" {
		return nil, fmt.Errorf("configuration of %s: socket is missing", Type)
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, fmt.Errorf("result of the plugins before %s: %w", Type, err)
	}
	return &c, nil
}

// podArgs are what Kubernetes' runtimes say of a pod.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint:revive // the runtimes' names
	K8S_POD_NAME      types.UnmarshallableString //nolint:revive // as above
	K8S_POD_UID       types.UnmarshallableString //nolint:revive // as above
}
