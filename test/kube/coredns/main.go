// Command coredns is CoreDNS with its own set of plugins: the cluster DNS of the tests.
package main

import (
	_ "github.com/coredns/coredns/core/plugin"
	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
