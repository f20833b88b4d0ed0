package deploy

import (
	"encoding/json"
	"fmt"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const (
	// proxyConfig is Istio's annotation for what is set of one proxy, where the mesh's
	// configuration sets it of all in defaultConfig.
	proxyConfig = "proxy.istio.io/config"
	// statsVariable has the waypoint show statistics of clusters beside its usual ones.
	statsVariable = "PROXY_STATS_MATCHER"
)

// matcher is ProxyConfig.ProxyStatsMatcher of Istio, as a waypoint reads it.
type matcher struct {
	Prefixes []string `json:"inclusionPrefixes,omitempty"`
	Suffixes []string `json:"inclusionSuffixes,omitempty"`
	Regexps  []string `json:"inclusionRegexps,omitempty"`
}

// statistics are those that a Gateway's pods show beside the usual: its annotation's, or
// else the mesh's; no variable where there are none.
func statistics(annotations map[string]string, mesh *meshv1alpha1.ProxyConfig_ProxyStatsMatcher) ([]corev1.EnvVar, error) {
	own := struct {
		Matcher *matcher `json:"proxyStatsMatcher"`
	}{}
	if text := annotations[proxyConfig]; text != "" {
		if err := yaml.Unmarshal([]byte(text), &own); err != nil {
			return nil, fmt.Errorf("annotation %s: %w", proxyConfig, err)
		}
	}
	m := own.Matcher
	if m == nil && mesh != nil {
		m = &matcher{mesh.InclusionPrefixes, mesh.InclusionSuffixes, mesh.InclusionRegexps}
	}
	if m == nil {
		return nil, nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return []corev1.EnvVar{{Name: statsVariable, Value: string(text)}}, nil
}
