// Command kubeparts is the parts of Kubernetes that a cluster for tests is made of, in one binary:
// which one it is depends on the name it is called by.
//
//	control-plane   etcd, API server, controllers and scheduler in one process
//	kubelet, kube-proxy, kubectl
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	name := filepath.Base(os.Args[0])
	switch name {
	case "control-plane":
		if err := controlPlane(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "control-plane:", err)
			os.Exit(1)
		}
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "kubectl":
		kubectl(cmd.NewDefaultKubectlCommand())
	default:
		fmt.Fprintf(os.Stderr, "%s: call it as control-plane, kubelet, kube-proxy or kubectl (links to one file)\n", name)
		os.Exit(2)
	}
}

// kubectl prints its errors itself, in the form that scripts know.
func kubectl(c *cobra.Command) {
	if err := cli.RunNoErrOutput(c); err != nil {
		util.CheckErr(err)
	}
}
