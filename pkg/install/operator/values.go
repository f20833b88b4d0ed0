package operator

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// values are those of Istio's charts, and of ours.
func values() map[string]rule {
	fields := own()
	for name, r := range map[string]rule{
		"global":  {fields: global()},
		"pilot":   {fields: pilot(), hints: map[string]string{"enableEDSDebounce": "changes are always sent together, at once when there was quiet and at most 20 times a second; there is nothing to switch on"}},
		"ztunnel": {fields: ztunnel()},
		"cni":     {fields: cni()},
		"profile": {take: profile}, "revision": {take: revision}, "defaultRevision": {take: revision},
		"gateways": {inert: noIngress}, "sidecarInjectorWebhook": {inert: noSidecar},
		"telemetry":    {inert: "telemetry follows meshConfig and the Telemetry API"},
		"base":         {inert: "the definitions of the mesh's kinds are always installed"},
		"istiodRemote": {inert: "use profile: remote, with remote.address"},
		"revisionTags": {inert: noRevisions}, "ownerName": {inert: noRevisions},
		"compatibilityVersion": {inert: "there is no older behaviour to keep"},
		"experimental":         {inert: "there are no experiments to switch on"},
		"gatewayClasses":       {inert: "waypoints are set up by parametersRef of their Gateway or GatewayClass"},
	} {
		fields[name] = r
	}
	return fields
}

// inert are fields that have no effect for one reason.
func inert(fields map[string]rule, why string, names string) {
	for name := range strings.FieldsSeq(names) {
		fields[name] = rule{inert: why}
	}
}

func global() map[string]rule {
	fields := map[string]rule{
		"hub": {take: str("hub")}, "tag": {take: str("tag")}, "imagePullPolicy": {to: "pullPolicy"}, "imagePullSecrets": {to: "imagePullSecrets"},
		"istioNamespace": {take: namespace}, "network": {to: "network"}, "remotePilotAddress": {to: "remote.address"},
		"priorityClassName": {take: all("controlPlane.priorityClassName", "nodeAgent.priorityClassName")},
		"logging":           {fields: map[string]rule{"level": {take: logLevel("controlPlane.logLevel", "nodeAgent.logLevel")}}},
		"multiCluster":      {fields: map[string]rule{"clusterName": {to: "clusterID"}, "enabled": {inert: "clusters find each other by what each is told"}, "globalDomainSuffix": {inert: "not served"}, "includeEnvoyFilter": {inert: "not served"}}},
		"revision":          {take: revision},
		"proxy":             {fields: proxy()},
		"configValidation":  {to: "webhook.enabled"},
		"waypoint":          {inert: "waypoints are set up by parametersRef of their Gateway or GatewayClass"},
		"defaultResources":  {inert: "set controlPlane.resources and nodeAgent.resources"},
		"defaultPodDisruptionBudget": {fields: map[string]rule{"enabled": {take: func(r *reader, n *yaml.Node, field string) {
			if n.Value == "false" {
				r.put("controlPlane.disruptionBudget", 0)
			}
		}}}},
	}
	inert(fields, noSidecar, "proxy_init sds tracer podDNSSearchNamespaces omitSidecarInjectorConfigMap mountMtlsCerts")
	inert(fields, "not a setting of this product", `arch certSigners defaultNodeSelector defaultTolerations logAsJson meshID meshNetworks operatorManageWebhooks variant
		istiod pilotCertProvider jwtPolicy sts caAddress externalIstiod configCluster caName platform ipFamilies ipFamilyPolicy trustBundleName nativeNftables
		networkPolicy resourceScope agentgateway enableReaderRBAC readerServiceAccount`)
	return fields
}

func proxy() map[string]rule {
	fields := map[string]rule{"clusterDomain": {to: "settings.clusterDomain"}}
	inert(fields, noSidecar, `autoInject componentLogLevel enableCoreDump excludeInboundPorts excludeIPRanges image includeIPRanges logLevel outlierLogPath privileged
		readinessInitialDelaySeconds readinessPeriodSeconds readinessFailureThreshold seccompProfile startupProbe statusPort resources tracer excludeOutboundPorts
		lifecycle holdApplicationUntilProxyStarts includeInboundPorts includeOutboundPorts`)
	return fields
}

func pilot() map[string]rule {
	const at = "controlPlane"
	fields := placement(at)
	for name, r := range map[string]rule{
		"enabled": {to: at + ".enabled"}, "autoscaleEnabled": {to: at + ".autoscale.enabled"}, "autoscaleMin": {to: at + ".autoscale.minReplicas"},
		"autoscaleMax": {to: at + ".autoscale.maxReplicas"}, "replicaCount": {to: at + ".replicas"},
		"cpu": {fields: map[string]rule{"targetAverageUtilization": {to: at + ".autoscale.averageUtilization"}}},
		"hub": {take: str("hub")}, "tag": {take: str("tag")},
		"env": {take: func(r *reader, n *yaml.Node, field string) {
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				variable(r, at+".env", n.Content[i].Value, n.Content[i+1], field+"."+n.Content[i].Value)
			}
		}},
		"traceSampling": {to: "meshConfig.defaultConfig.tracing.sampling"},
	} {
		fields[name] = r
	}
	inert(fields, "not a setting of this product", `autoscaleBehavior image keepaliveMaxServerConnectionAge deploymentLabels podLabels configMap rollingMaxSurge rollingMaxUnavailable
		serviceAnnotations serviceAccountAnnotations jwksResolverExtraRootCA variant seccompProfile topologySpreadConstraints extraContainerArgs volumeMounts volumes
		ipFamilies ipFamilyPolicy memory cni taint trustedZtunnelNamespace istiodRemote envVarFrom crlConfigMapName`)
	return fields
}

// variable is one of the environment: Istio's own have no meaning here.
func variable(r *reader, to, name string, value *yaml.Node, field string) {
	for _, prefix := range []string{"PILOT_", "ISTIO_", "ENABLE_", "AMBIENT_", "CITADEL_", "UNSAFE_"} {
		if strings.HasPrefix(name, prefix) {
			r.note(value.Line, field, "%s is read by Istio's control plane and not by this one", name)
			return
		}
	}
	r.put(to+"."+name, value.Value)
	r.request.origins[to+"."+name] = origin{r.file, value.Line, field}
}

func ztunnel() map[string]rule {
	const at = "nodeAgent"
	fields := placement(at)
	for name, r := range map[string]rule{
		"terminationGracePeriodSeconds": {to: at + ".terminationGracePeriodSeconds"}, "env": {to: at + ".env"},
		"logLevel": {take: logLevel(at + ".logLevel")}, "hub": {take: str("hub")}, "tag": {take: str("tag")},
	} {
		fields[name] = r
	}
	inert(fields, "not a setting of this product", `resourceName labels annotations podLabels variant image imagePullPolicy imagePullSecrets logAsJson multiCluster meshConfig
		istioNamespace xdsAddress caAddress revision updateStrategy seLinuxOptions seccompProfile volumes volumeMounts network global profile resourceQuotas dnsPolicy dnsConfig platform`)
	return fields
}

func cni() map[string]rule {
	fields := map[string]rule{"cniBinDir": {to: "nodeAgent.cni.binDir"}, "cniConfDir": {to: "nodeAgent.cni.confDir"}, "enabled": {take: mustBeTrue(agentBringsPlugin)}}
	inert(fields, agentBringsPlugin, `hub tag variant image pullPolicy cniConfFileName cniNetnsDir excludeNamespaces affinity env daemonSetLabels podAnnotations podLabels psp_cluster_role
		logLevel logging repair chained resource_quotas resources privileged seccompProfile ambient provider rollingMaxUnavailable istioOwnedCNIConfig
		istioOwnedCNIConfigFileName useAppArmorAnnotation`)
	return fields
}

// levels are Istio's names of how much is logged.
var levels = map[string]string{"debug": "debug", "trace": "debug", "info": "info", "warn": "warn", "warning": "warn", "error": "error", "fatal": "error", "none": "error"}

// logLevel reads "scope:level,..." of which the default, or a level alone, counts.
func logLevel(to ...string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		for part := range strings.SplitSeq(n.Value, ",") {
			scope, word, scoped := strings.Cut(part, ":")
			if !scoped {
				scope, word = "default", part
			}
			level, ok := levels[word]
			switch {
			case !ok:
				r.fail(n.Line, field, "%q is no level: debug, info, warning or error", word)
			case scope != "default" && scope != "all":
				r.note(n.Line, field, "%s: there are no levels for parts of the log", scope)
			default:
				for _, t := range to {
					r.put(t, level)
					r.request.origins[t] = origin{r.file, n.Line, field}
				}
			}
		}
	}
}
