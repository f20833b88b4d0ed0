// Command apps writes the images of the tests' workloads: apps DIRECTORY, run in the repository's root.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: apps DIRECTORY")
		os.Exit(2)
	}
	binary, err := mesh.Program(context.Background(), ".", os.Args[1], "fairlead")
	path := ""
	if err == nil {
		path, err = apps.Write(context.Background(), binary, os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "apps:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
