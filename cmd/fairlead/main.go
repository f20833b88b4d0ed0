// Command fairlead is the mesh's command line: it checks objects and asks a cluster's mesh,
// with the commands, flags and output of istioctl, and knows `lab`: a cluster on
// this machine, out of network namespaces.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
	"github.com/fairlead-mesh/fairlead/pkg/lab/probe"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
	"github.com/fairlead-mesh/fairlead/pkg/run"
)

// Exit codes: 1 is a failure, 2 means that the machine or the call cannot do it, 3 that
// the mesh is out of the cluster and not off all nodes.
const (
	exitFailure = 1
	exitMissing = 2
	exitUnclean = 3
)

func main() {
	// A lab's pods are this binary too; hundreds of them start, so before all else.
	if len(os.Args) == 2 && os.Args[1] == sandbox.Arg {
		os.Exit(runSandbox())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(commandFirst(os.Args[1:]))
	err := root.ExecuteContext(ctx)
	os.Exit(report(err))
}

// report prints an error and says which code it is worth.
func report(err error) int {
	var missing missingError
	var coded exitError
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended): // a program in a pod has said what there is to say
		if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return ended.ExitCode()
	case errors.As(err, &coded):
		fmt.Fprintln(os.Stderr, coded.text)
		return coded.code
	case errors.As(err, &missing):
		for _, sentence := range missing {
			fmt.Fprintln(os.Stderr, sentence)
		}
		return exitMissing
	}
	fmt.Fprintln(os.Stderr, "fairlead:", err)
	if run.IsUsage(err) {
		return exitMissing
	}
	return exitFailure
}

// exitError ends the process with a code of its own, after its text.
type exitError struct {
	code int
	text string
}

func (e exitError) Error() string { return e.text }

// missingError is what the machine lacks, a sentence each.
type missingError []string

func (m missingError) Error() string { return fmt.Sprintf("%d things are missing", len(m)) }

// commandFirst puts flags that stand before the command after it, as istioctl takes
// them: `-n shop proxy-status`.
func commandFirst(args []string) []string {
	i := 0
	for i < len(args) && strings.HasPrefix(args[i], "-") && len(args[i]) > 1 {
		switch flag := strings.TrimLeft(args[i], "-"); flag {
		case "h", "help", "version":
			return args
		default:
			i++
			if !strings.Contains(flag, "=") {
				i++ // its value
			}
		}
	}
	if i == 0 || i >= len(args) {
		return args
	}
	return slices.Concat(args[i:i+1], args[:i], args[i+1:])
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "fairlead",
		Short:         "Fairlead, a sidecarless service mesh",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newInstall(), newUpgrade(), newUninstall(), newVerifyInstall(), newManifest(), newProfile(), newExperimental())
	root.AddCommand(newLab(), newApp(), newValidate(), newWaypoint(), newVersion(), newAnalyze())
	root.AddCommand(newProxyStatus(), newProxyConfig(), newZtunnelConfig(), newTag(), newWorkloadLogs(), newTroubleshoot())
	return root
}

// runSandbox is the child's side of a process in a pod.
func runSandbox() int {
	program, err := sandbox.Enter()
	if err != nil {
		return report(err)
	}
	if program.Name == probe.Name {
		return report(probe.Serve(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return report(runApp(ctx, program.Name, program.Args))
}

func runApp(ctx context.Context, name string, args []string) error {
	return app.Run(ctx, name, app.Env{Args: args, Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr})
}

func newApp() *cobra.Command {
	return &cobra.Command{
		Use:   "app NAME [ARGS]",
		Short: "Run one of the programs that the lab's pods run",
		Long:  "Runs one of the programs that this binary carries for the lab's pods, here or in a pod.",
		Example: `  fairlead lab exec client -- fairlead app load --url http://server/ --duration 10s --concurrency 4
  fairlead lab exec client -- fairlead app load --url tcp://server:9000 --rate 200 --duration 10s --bytes 1024
  fairlead app echo --http 8080 --udp 8080`,
		Args:               cobra.MinimumNArgs(1),
		ValidArgs:          app.Names(),
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-h" || args[0] == "--help" {
				return cmd.Help()
			}
			return runApp(cmd.Context(), args[0], args[1:])
		},
	}
}
