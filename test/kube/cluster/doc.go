// Package cluster runs real Kubernetes on this machine for tests: an API server
// with its controllers alone (three seconds, on loopback), or nodes with kubelet
// and containerd as well, each in namespaces of its own.
//
// A test asks for one with [ForTest] and talks to it with Kubectl or Config. A
// cluster lives as long as the process that started it, however that ends; one
// that is started Detached stays until [Down]. Everything it makes on the machine
// has the cluster's name in it, so that Down also cleans up after a kill.
//
// It drives the binaries that test/kube/build.sh builds and imports nothing of
// the product. Tests and commands under test may import it.
package cluster
