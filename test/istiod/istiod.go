package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// startIstiod starts Pilot as Istio's ambient profile runs it.
func startIstiod(ctx context.Context, c config, kubeconfig string) (*child, error) {
	dir := filepath.Join(c.stateDir, "istiod")
	if err := injection(filepath.Join(c.parts, "istio"), filepath.Join(dir, "var/lib/istio/inject")); err != nil {
		return nil, fmt.Errorf("the templates of waypoints: %w", err)
	}
	_, port, err := net.SplitHostPort(c.listen)
	if err != nil {
		return nil, err
	}
	return start(ctx, filepath.Join(c.parts, "pilot-discovery"), "pilot-discovery", dir, []string{
		"POD_NAMESPACE=" + systemNamespace, "POD_NAME=istiod-0", "SERVICE_ACCOUNT=istiod", "REVISION=default", "KUBECONFIG=",
		"PILOT_ENABLE_AMBIENT=true", "PILOT_ENABLE_ALPHA_GATEWAY_API=true", "PILOT_ENABLE_ANALYSIS=false",
		"CA_TRUSTED_NODE_ACCOUNTS=" + systemNamespace + "/" + agentAccount,
		"JWT_POLICY=third-party-jwt", "PILOT_CERT_PROVIDER=istiod", "CLUSTER_ID=" + c.clusterID,
	}, []string{
		"discovery", "--kubeconfig=" + kubeconfig, "--grpcAddr=", "--secureGRPCAddr=[::]:" + port,
		"--httpAddr=127.0.0.1:8080", "--httpsAddr=127.0.0.1:15017", "--monitoringAddr=127.0.0.1:15014", "--ctrlz_address=127.0.0.1",
	})
}

// injection writes the templates of what istiod deploys, as Istio's chart renders them.
func injection(chart, dir string) error {
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	var all struct {
		Values map[string]any `json:"_internal_defaults_do_not_set"`
	}
	if err := yaml.Unmarshal(text, &all); err != nil {
		return err
	}
	v := all.Values
	global, _ := v["global"].(map[string]any)
	if global == nil {
		return errors.New("values.yaml has no global")
	}
	given, _ := v["gateways"].(map[string]any)
	values, err := json.Marshal(map[string]any{
		"global": global, "sidecarInjectorWebhook": v["sidecarInjectorWebhook"], "revision": v["revision"],
		"pilot": map[string]any{"cni": v["cni"], "env": v["env"]}, "gateways": maps.Clone(given),
	})
	if err != nil {
		return err
	}
	templates := map[string]string{}
	for _, name := range []string{"waypoint", "kube-gateway"} {
		text, err := os.ReadFile(filepath.Join(chart, name+".yaml"))
		if err != nil {
			return err
		}
		templates[name] = strings.TrimSpace(string(text))
	}
	config, err := yaml.Marshal(map[string]any{"defaultTemplates": []string{"sidecar"}, "policy": "enabled", "templates": templates})
	if err != nil {
		return err
	}
	return errors.Join(write(filepath.Join(dir, "config"), config), write(filepath.Join(dir, "values"), values))
}
