package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// View is a lab as `fairlead lab ps -o json` prints it. The form is documented in
// docs/lab.md; fields are added, never changed.
type View struct {
	Name         string            `json:"name"`
	Dir          string            `json:"dir"`
	PID          int               `json:"pid"`
	IPFamily     string            `json:"ipFamily"`
	ClusterID    string            `json:"clusterId"`
	TrustDomain  string            `json:"trustDomain"`
	Ready        bool              `json:"ready"`
	WaitsFor     []string          `json:"waitsFor"`
	LogDir       string            `json:"logDir"`
	Cgroup       string            `json:"cgroup"`
	ControlPlane *ControlPlaneView `json:"controlPlane"` // null without a mesh
	Nodes        []NodeView        `json:"nodes"`
	Services     []ServiceView     `json:"services"`
	Pods         []PodView         `json:"pods"`
}

// ControlPlaneView is how an agent reaches the control plane.
type ControlPlaneView struct {
	NetNS      string   `json:"netns"`
	Addresses  []string `json:"addresses"`
	XDSAddress string   `json:"xdsAddress"`
	CAAddress  string   `json:"caAddress"`
	ServerName string   `json:"serverName"`
	RootCert   string   `json:"rootCert"`
	// External is the address of another control plane, if the lab runs under one.
	External string `json:"external,omitempty"`
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Runs     int    `json:"runs,omitempty"`
}

// NodeView is a node.
type NodeView struct {
	Name      string            `json:"name"`
	NetNS     string            `json:"netns"`
	Addresses []string          `json:"addresses"`
	PodCIDRs  []string          `json:"podCIDRs"`
	Gateways  []string          `json:"gateways"`
	Labels    map[string]string `json:"labels"`
	// TokenFile is there also for a node without an agent, for another mesh's.
	TokenFile string     `json:"tokenFile,omitempty"`
	Agent     *AgentView `json:"agent"` // null where there is none
}

// AgentView is a node's agent.
type AgentView struct {
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	PID         int    `json:"pid,omitempty"`
	Runs        int    `json:"runs"`
	Instance    string `json:"instance"`
	EnrolSocket string `json:"enrolSocket"`
	StateDir    string `json:"stateDir"`
	CertDir     string `json:"certDir"`
	PodName     string `json:"podName"`
	Namespace   string `json:"namespace"`
}

// ServiceView is a service.
type ServiceView struct {
	Namespace  string     `json:"namespace"`
	Name       string     `json:"name"`
	ClusterIPs []string   `json:"clusterIPs"`
	Ports      []PortView `json:"ports"`
	Endpoints  []string   `json:"endpoints"`
}

// PortView is a port of a service.
type PortView struct {
	Name     string `json:"name,omitempty"`
	Port     int32  `json:"port"`
	Target   string `json:"target"`
	Protocol string `json:"protocol"`
}

// PodView is a pod.
type PodView struct {
	Namespace      string          `json:"namespace"`
	Name           string          `json:"name"`
	UID            string          `json:"uid"`
	Deployment     string          `json:"deployment,omitempty"`
	Node           string          `json:"node"`
	IPs            []string        `json:"ips"`
	NetNS          string          `json:"netns"`
	HostInterface  string          `json:"hostInterface"`
	ServiceAccount string          `json:"serviceAccount"`
	Identity       string          `json:"identity"`
	Phase          string          `json:"phase"`
	Ready          bool            `json:"ready"`
	Terminating    bool            `json:"terminating,omitempty"`
	Captured       bool            `json:"captured"` // wanted
	Enrolled       bool            `json:"enrolled"` // done
	Reason         string          `json:"reason,omitempty"`
	Cgroup         string          `json:"cgroup"`
	Containers     []ContainerView `json:"containers"`
}

// ContainerView is a container of a pod.
type ContainerView struct {
	Name     string `json:"name"`
	Image    string `json:"image"`
	PID      int    `json:"pid,omitempty"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	LogFile  string `json:"logFile"`
}

// view is made in the loop.
func (l *Lab) view() View {
	v := View{
		Name: l.opts.Name, Dir: l.opts.Dir, PID: os.Getpid(), IPFamily: l.opts.Family.String(), ClusterID: clusterID,
		TrustDomain: l.opts.TrustDomain, WaitsFor: append([]string{}, l.notReady()...), LogDir: l.place.logs(), Cgroup: l.cgroup,
		Nodes: []NodeView{}, Services: []ServiceView{}, Pods: []PodView{}, ControlPlane: l.controlPlaneView(),
	}
	if len(v.WaitsFor) == 0 && l.settling != settled {
		v.WaitsFor = []string{"the agents have not heard of all pods yet"}
	}
	v.Ready = len(v.WaitsFor) == 0
	for _, n := range l.sortedNodes() {
		v.Nodes = append(v.Nodes, l.nodeView(n))
	}
	pods := l.sortedPods()
	for _, key := range sortedKeys(l.set.Services) {
		if s := l.services[key]; s != nil {
			v.Services = append(v.Services, l.serviceView(s, pods))
		}
	}
	for _, p := range pods {
		v.Pods = append(v.Pods, l.podView(p))
	}
	return v
}

func (l *Lab) controlPlaneView() *ControlPlaneView {
	if l.opts.NoMesh {
		return nil
	}
	address := l.controlPlaneAddr().String()
	v := &ControlPlaneView{
		NetNS: l.controlHost.NS().Path(), Addresses: hostsOf(l.opts.Family.ControlPlane()), XDSAddress: address, CAAddress: address,
		ServerName: l.opts.ControlPlaneName, RootCert: l.rootCert(), External: l.opts.ControlPlane, State: "elsewhere",
	}
	if d := l.controlPlane; d != nil {
		v.State, v.PID, v.Runs = d.state, d.pid, d.runs
	}
	return v
}

func (l *Lab) nodeView(n *node) NodeView {
	v := NodeView{Name: n.name, NetNS: n.host.NS().Path(), Addresses: hostsOf(n.addrs), Labels: n.labels()}
	for _, p := range n.podCIDRs {
		v.PodCIDRs = append(v.PodCIDRs, p.String())
	}
	for _, g := range n.host.Gateways() {
		v.Gateways = append(v.Gateways, g.String())
	}
	if !l.opts.NoMesh {
		v.TokenFile = l.tokenFile(n.name)
	}
	if d := n.agent; d != nil {
		v.Agent = &AgentView{
			State: d.state, Ready: n.agentReady, PID: d.pid, Runs: d.runs, Instance: l.place.instance(n.name),
			EnrolSocket: l.place.in("enrol", n.name+".sock"), StateDir: l.place.in("agents", n.name), CertDir: l.place.certs(n.name),
			PodName: agentPod(n.name), Namespace: agentNamespace,
		}
	}
	return v
}

func (l *Lab) serviceView(s *service, pods []*pod) ServiceView {
	v := ServiceView{
		Namespace: s.complete.Namespace, Name: s.complete.Name, ClusterIPs: append([]string{}, s.complete.Spec.ClusterIPs...),
		Ports: []PortView{}, Endpoints: []string{},
	}
	for _, p := range s.complete.Spec.Ports {
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = "TCP"
		}
		target := p.TargetPort.String()
		if target == "0" {
			target = strconv.Itoa(int(p.Port))
		}
		v.Ports = append(v.Ports, PortView{Name: p.Name, Port: p.Port, Target: target, Protocol: protocol})
	}
	for _, e := range l.endpoints(s.complete, pods) {
		if serves(s.complete, e.addr) {
			v.Endpoints = append(v.Endpoints, e.addr.String())
		}
	}
	return v
}

func (l *Lab) podView(p *pod) PodView {
	v := PodView{
		Namespace: p.key.Namespace, Name: p.key.Name, UID: p.uid, Node: p.node.name, NetNS: p.netns, HostInterface: p.hostInterface,
		ServiceAccount: p.spec.ServiceAccountName, Identity: p.identity(l.opts.TrustDomain), Phase: string(p.phase), Ready: p.ready,
		Terminating: p.deleting, Captured: p.captured, Enrolled: p.enrolled, Cgroup: filepath.Join(l.cgroup, "node-"+p.node.name, "pod-"+p.uid),
		IPs: []string{}, Containers: []ContainerView{},
	}
	if p.owner != nil {
		v.Deployment = p.owner.Name
	}
	if !p.ready && !p.done() {
		v.Reason = p.reason()
	}
	for _, a := range p.addrs {
		v.IPs = append(v.IPs, a.String())
	}
	for _, c := range p.containers {
		v.Containers = append(v.Containers, ContainerView{
			Name: c.Name, Image: c.Image, PID: c.PID, Ready: c.Ready, Restarts: c.Restarts,
			LogFile: LogFile(l.opts.Name, filepath.Join("pod", p.key.Namespace, p.key.Name, c.Name)),
		})
	}
	return v
}

func hostsOf(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Addr().String())
	}
	return out
}
