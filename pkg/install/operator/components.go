package operator

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

const agentBringsPlugin = "the node agent brings its CNI plugin itself; set it up under nodeAgent.cni"

// components are Istio's parts, each with what Kubernetes runs it by.
func components() map[string]rule {
	return map[string]rule{
		"base":            {fields: map[string]rule{"enabled": {take: mustBeTrue("the definitions of the mesh's kinds are always installed")}, "k8s": {inert: "the base runs nothing"}}},
		"pilot":           component("controlPlane", pilotK8s()),
		"ztunnel":         component("nodeAgent", agentK8s()),
		"cni":             {fields: map[string]rule{"enabled": {take: mustBeTrue(agentBringsPlugin)}, "namespace": {take: namespace}, "hub": {inert: agentBringsPlugin}, "tag": {inert: agentBringsPlugin}, "k8s": {inert: agentBringsPlugin}}},
		"istiodRemote":    {fields: map[string]rule{"enabled": {inert: "use profile: remote, with remote.address"}, "k8s": {inert: "nothing runs for it"}}},
		"ingressGateways": {items: &rule{take: gateway}},
		"egressGateways":  {items: &rule{take: gateway}},
	}
}

func component(at string, k8s map[string]rule) rule {
	return rule{fields: map[string]rule{
		"enabled": {to: at + ".enabled"}, "namespace": {take: namespace}, "hub": {take: str("hub")}, "tag": {take: str("tag")}, "k8s": {fields: k8s},
	}}
}

func mustBeTrue(sentence string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		if n.Value != "true" {
			r.note(n.Line, field, "%s", sentence)
		}
	}
}

// placement is what parts have in common: where and with what their pods run.
func placement(at string) map[string]rule {
	return map[string]rule{
		"resources": {to: at + ".resources"}, "nodeSelector": {to: at + ".nodeSelector"}, "tolerations": {to: at + ".tolerations"},
		"affinity": {to: at + ".affinity"}, "podAnnotations": {to: at + ".podAnnotations"},
	}
}

func k8s(at string) map[string]rule {
	fields := placement(at)
	for name, r := range map[string]rule{
		"priorityClassName": {to: at + ".priorityClassName"},
		"env":               {take: env(at + ".env")},
		"imagePullPolicy":   {to: "pullPolicy"},
		"readinessProbe":    {inert: oneProbe}, "strategy": {inert: safely},
		"service": {inert: oneService}, "serviceAnnotations": {inert: oneService},
		"securityContext": {inert: fixedRights}, "volumes": {inert: noVolumes}, "volumeMounts": {inert: noVolumes},
		"overlays": {inert: noOverlays},
	} {
		fields[name] = r
	}
	return fields
}

func pilotK8s() map[string]rule {
	fields := k8s("controlPlane")
	fields["replicaCount"] = rule{take: replicaCount}
	fields["hpaSpec"] = rule{fields: map[string]rule{
		"minReplicas": {take: elastic("controlPlane.autoscale.minReplicas")}, "maxReplicas": {take: elastic("controlPlane.autoscale.maxReplicas")},
		"metrics":        {inert: "the control plane grows by its CPU: set controlPlane.autoscale.averageUtilization"},
		"behavior":       {inert: "Kubernetes' own behaviour holds"},
		"scaleTargetRef": {take: ignore},
	}}
	fields["podDisruptionBudget"] = rule{fields: map[string]rule{
		"minAvailable":   {to: "controlPlane.disruptionBudget"},
		"maxUnavailable": {inert: "set minAvailable"}, "selector": {take: ignore}, "unhealthyPodEvictionPolicy": {inert: "Kubernetes' own policy holds"},
	}}
	return fields
}

func agentK8s() map[string]rule {
	fields := k8s("nodeAgent")
	const perNode = "there is one agent on each node"
	fields["replicaCount"], fields["hpaSpec"], fields["podDisruptionBudget"] = rule{inert: perNode}, rule{inert: perNode}, rule{inert: perNode}
	return fields
}

// replicaCount is what there is where nothing scales.
func replicaCount(r *reader, n *yaml.Node, field string) {
	r.set("controlPlane.replicas", n, field)
	r.set("controlPlane.autoscale.minReplicas", n, field)
}

// elastic sets a bound of the autoscaler, which is on then.
func elastic(to string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		r.put("controlPlane.autoscale.enabled", true)
		r.set(to, n, field)
	}
}

// env takes a container's environment, of which the chart takes plain values.
func env(to string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		if n.Kind != yaml.SequenceNode {
			r.fail(n.Line, field, "a list of name and value is wanted")
			return
		}
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", field, i)
			name := text(item, "name")
			switch value := child(item, "value"); {
			case name == "":
				r.fail(item.Line, at, "a variable needs a name")
			case child(item, "valueFrom") != nil || value == nil:
				r.note(item.Line, at, "%s: variables have plain values here, not valueFrom", name)
			default:
				variable(r, to, name, value, at+".value")
			}
		}
	}
}

// gateway is one of Istio's gateways.
func gateway(r *reader, n *yaml.Node, field string) {
	known := map[string]rule{"k8s": {take: ignore}, "label": {take: ignore}, "name": {take: ignore}, "enabled": {take: ignore}, "namespace": {take: ignore}, "hub": {take: ignore}, "tag": {take: ignore}}
	r.walk(n, rule{fields: known}, field)
	if text(n, "enabled") == "true" {
		r.note(n.Line, field, "%s: %s", text(n, "name"), noIngress)
	}
}
