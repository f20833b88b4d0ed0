// The CNI plugin: the container runtime calls it after the one that connects pods,
// and it has the node's agent capture a pod before the pod's first process.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-mesh/fairlead/pkg/cni"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

func main() {
	p := cni.Plugin{Out: os.Stdout, Log: os.Stderr}
	nothing := func(*skel.CmdArgs) error { return nil } // the node's network is ready without an agent too: it is to be started
	skel.PluginMainFuncs(skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: nothing, Status: nothing},
		version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), cni.Type+" "+telemetry.Version)
}
