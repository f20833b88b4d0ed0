package deploy

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Who may write Gateways and ConfigMaps in a namespace must not get by them what Kubernetes gives
// to who may create pods there: code of their own, as any service account, with any Secret.
func TestParametersGiveNoPowers(t *testing.T) {
	pod := func(text string) string { return "spec: {template: {spec: {" + text + "}}}" }
	container := func(text string) string { return pod("containers: [{name: istio-proxy, " + text + "}]") }
	for _, c := range []struct{ key, text, want string }{
		{keyDeployment, pod("hostNetwork: true"), "spec.hostNetwork"},
		{keyDeployment, pod("hostPID: true"), "spec.hostPID"},
		{keyDeployment, pod("hostIPC: true"), "spec.hostIPC"},
		{keyDeployment, pod("nodeName: n1"), "spec.nodeName"},
		{keyDeployment, pod("serviceAccountName: admin"), "spec.serviceAccountName"},
		{keyDeployment, pod("serviceAccount: admin"), "spec.serviceAccount"},
		{keyDeployment, pod("automountServiceAccountToken: true"), "spec.automountServiceAccountToken"},
		{keyDeployment, pod("shareProcessNamespace: true"), "spec.shareProcessNamespace"},
		{keyDeployment, pod("volumes: [{name: x, hostPath: {path: /}}]"), "spec.volumes"},
		{keyDeployment, pod("volumes: [{name: x, secret: {secretName: s}}]"), "spec.volumes"},
		{keyDeployment, pod("volumes: [{name: istiod-ca-cert, configMap: {name: mine}}]"), "spec.volumes"},
		{keyDeployment, pod("containers: [{name: more, image: x}]"), "another container"},
		{keyDeployment, pod("containers: [{$patch: replace}, {name: istio-proxy, image: x}]"), "containers[0]"},
		{keyDeployment, pod("initContainers: [{name: more, image: x}]"), "spec.initContainers"},
		{keyDeployment, pod("securityContext: {runAsNonRoot: false}"), "securityContext.runAsNonRoot"},
		{keyDeployment, pod("securityContext: {runAsUser: 0}"), "securityContext.runAsUser"},
		{keyDeployment, pod("securityContext: {seccompProfile: {type: Unconfined}}"), "securityContext.seccompProfile"},
		{keyDeployment, pod("securityContext: {sysctls: [{name: kernel.x, value: \"1\"}]}"), "securityContext.sysctls"},
		{keyDeployment, pod("securityContext: null"), "securityContext"},
		{keyDeployment, container("image: evil"), ".image"},
		{keyDeployment, container("command: [sh]"), ".command"},
		{keyDeployment, container("args: [--xds-address=evil:1]"), ".args"},
		{keyDeployment, container("envFrom: [{secretRef: {name: s}}]"), ".envFrom"},
		{keyDeployment, container("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"), ".env[A].valueFrom"},
		{keyDeployment, container("volumeMounts: [{name: istio-token, mountPath: /x}]"), ".volumeMounts"},
		{keyDeployment, container("ports: [{containerPort: 15008, hostPort: 80}]"), ".ports"},
		{keyDeployment, container("lifecycle: {postStart: {exec: {command: [sh]}}}"), ".lifecycle"},
		{keyDeployment, container("livenessProbe: {exec: {command: [sh]}}"), ".livenessProbe.exec"},
		{keyDeployment, container("livenessProbe: {httpGet: {host: 169.254.169.254, port: 80}}"), ".livenessProbe: a host"},
		{keyDeployment, container("securityContext: {privileged: true}"), ".securityContext"},
		{keyDeployment, container("securityContext: {allowPrivilegeEscalation: true}"), ".securityContext"},
		{keyDeployment, container("securityContext: {capabilities: {add: [SYS_ADMIN]}}"), ".securityContext"},
		{keyDeployment, container("securityContext: {runAsUser: 0, runAsNonRoot: false}"), ".securityContext.runAsUser"},
		{keyDeployment, container("securityContext: null"), ".securityContext"},
		{keyDeployment, "spec: {template: {metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/istio-proxy: unconfined}}}}", "annotations["},
		{keyDeployment, "spec: {selector: {matchLabels: {app: other}}}", "spec.selector"},
		{keyService, "spec: {selector: {app: other}}", "spec.selector"},
		{keyService, "spec: {externalIPs: [10.0.0.1]}", "spec.externalIPs"},
		{keyService, "spec: {type: ExternalName, externalName: evil.example}", "spec.externalName"},
		{keyAutoscaler, "spec: {maxReplicas: 3, scaleTargetRef: {name: other}}", "spec.scaleTargetRef"},
		{keyDisruption, "spec: {minAvailable: 9, selector: {matchLabels: {app: other}}}", "spec.selector"},
		{keyDeployment, "metadata: {annotations: {a: &a '" + strings.Repeat("x", 20_000) + "'}}\nspec: {template: {spec: {hostAliases: [{hostnames: [" + strings.Repeat("*a, ", 1000) + "x]}]}}}", "after aliases are expanded"},
		{keyDeployment, "# " + strings.Repeat("x", maxParameters), "bytes"},
	} {
		all, problems := Objects([]*gatewayv1.Gateway{customised("own")}, with(nil, map[string]string{c.key: c.text}))
		if err := problems["shop/waypoint"]; err == nil || !strings.Contains(err.Error(), c.want) || len(all) > 0 {
			t.Errorf("%s %s: error %v, want %q", c.key, c.text[:min(len(c.text), 80)], err, c.want)
		}
		if c.want == "bytes" || strings.Contains(c.want, "aliases") {
			continue
		}
		// Who writes the class's parameters has the mesh.
		if _, problems := Objects([]*gatewayv1.Gateway{customised("")}, with(map[string]string{c.key: c.text}, nil)); len(problems) > 0 {
			t.Errorf("%s %s, of the class: %v", c.key, c.text, problems)
		}
	}
}

// What says how a waypoint is run is the Gateway's own affair.
func TestParametersOfOnesOwn(t *testing.T) {
	own := map[string]string{
		keyDeployment: `
metadata: {annotations: {a: b}}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxSurge: 50%}}
  template:
    metadata: {labels: {team: x}, annotations: {a: b}}
    spec:
      nodeSelector: {pool: mesh}
      tolerations: [{operator: Exists}]
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
      affinity: {podAntiAffinity: {}}
      priorityClassName: high
      terminationGracePeriodSeconds: 90
      imagePullSecrets: [{name: pull}]
      securityContext: {runAsUser: 1000620000, fsGroup: 1}
      containers:
      - name: istio-proxy
        imagePullPolicy: Always
        env: [{name: GOMAXPROCS, value: "2"}, {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]
        resources: {limits: {cpu: 2, memory: 1Gi}}
        securityContext: {runAsUser: null, runAsGroup: null}
        readinessProbe: {periodSeconds: 1}
        livenessProbe: {httpGet: {path: /healthz/ready, port: 15021}}
`,
		keyService: "spec: {type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8], sessionAffinity: ClientIP, ports: [{name: mesh, port: 15008, nodePort: 30001}]}",
		keyAccount: "metadata: {annotations: {a: b}}",
	}
	all, problems := Objects([]*gatewayv1.Gateway{customised("own")}, with(nil, own))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c := one[*appsv1.Deployment](t, all).Spec.Template.Spec.Containers[0]
	if c.SecurityContext.RunAsUser != nil || !*c.SecurityContext.RunAsNonRoot || !has(c.Env, "GOMAXPROCS") || c.LivenessProbe == nil {
		t.Errorf("container %+v", c)
	}
	if one[*corev1.Service](t, all).Spec.Type != corev1.ServiceTypeLoadBalancer {
		t.Error("the Service is not as the parameters say")
	}
}
