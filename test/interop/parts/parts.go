//go:build parts

// Package parts names the programs of Istio that the tests build: istiod, istioctl, and the echo
// server and client that the Gateway API's mesh tests run in their pods.
package parts

import (
	_ "istio.io/istio/istioctl/cmd/istioctl"
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
	_ "istio.io/istio/pkg/test/echo/cmd/client"
	_ "istio.io/istio/pkg/test/echo/cmd/server"
)
