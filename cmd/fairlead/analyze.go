package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/analyze"
	"github.com/fairlead-mesh/fairlead/pkg/cli/files"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// exitIssues is istioctl's code of an analysis that found something.
const exitIssues = 79

// analyzeFlags are those of analyze, as istioctl's.
type analyzeFlags struct {
	kube.Flags
	useKube, all, color, list, verbose bool
	output                             string
	failure, threshold                 analyze.Level
	suppress, only                     []string
	timeout                            time.Duration
}

func newAnalyze() *cobra.Command {
	f := &analyzeFlags{failure: analyze.Error}
	cmd := &cobra.Command{
		Use:   "analyze <file>...",
		Short: "Analyze the mesh's configuration and print validation messages",
		Long: `Looks at the objects of a cluster, at those of files, or at both as they would be together, and says what is wrong and
what does not do what it seems to. Codes IST... are Istio's, codes FL... are in docs/analyze.md.`,
		Example: `  # Analyze the current live cluster
  fairlead analyze -A

  # Analyze it as it would be after yaml files were applied
  fairlead analyze a.yaml b.yaml my-app-config/

  # Analyze yaml files without connecting to a live cluster
  fairlead analyze --use-kube=false a.yaml b.yaml my-app-config/

  # Suppress a message for all pods of a namespace
  fairlead analyze -S "IST0135=Deployment *.testing"`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.Bind(cmd.Flags())
	flags := cmd.Flags()
	flags.BoolVarP(&f.useKube, "use-kube", "k", true, "Use live Kubernetes cluster for analysis. Set --use-kube=false to analyze files only.")
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "Analyze all namespaces")
	flags.BoolVar(&f.color, "color", isTerminal(os.Stdout), "Disable with '=false'")
	flags.BoolVarP(&f.list, "list-analyzers", "L", false, "List the analyzers available to run. Suppresses normal execution.")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "Enable verbose output")
	flags.StringVarP(&f.output, "output", "o", "log", fmt.Sprintf("Output format: one of %v", analyze.Formats))
	flags.Var(&f.failure, "failure-threshold", "The severity level of analysis at which to set a non-zero exit code. Valid values: [Info Warning Error]")
	flags.Var(&f.threshold, "output-threshold", "The severity level of analysis at which to display messages. Valid values: [Info Warning Error]")
	flags.StringArrayVarP(&f.suppress, "suppress", "S", nil, `Suppress reporting a message code on a specific resource: <code>=<resource> (e.g. "IST0102=DestinationRule primary-dr.default"); * matches any text`)
	flags.StringArrayVar(&f.only, "analyzer", nil, "Select specific analyzers to run. Can be repeated.")
	for _, name := range []string{"ignore-unknown", "recursive"} {
		flags.Bool(name, false, "Accepted for istioctl's sake")
		_ = flags.MarkHidden(name)
	}
	flags.StringP("revision", "r", "default", "Accepted for istioctl's sake: there is one revision")
	_ = flags.MarkHidden("revision")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "The duration to wait before failing")
	return cmd
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

func (f *analyzeFlags) run(cmd *cobra.Command, args []string) error {
	out := cmd.OutOrStdout()
	if f.list {
		fmt.Fprintln(out, strings.Join(analyze.Names(), "\n"))
		return nil
	}
	var suppressed []analyze.Suppression
	for _, text := range f.suppress {
		s, err := analyze.NewSuppression(text)
		if err != nil {
			return err
		}
		suppressed = append(suppressed, s)
	}
	read, err := files.Read(cmd.InOrStdin(), args)
	if err != nil {
		return err
	}
	in := analyze.Input{Files: read, Whole: f.useKube, Installer: checkInstaller}
	if f.useKube {
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		defer cancel()
		client, err := f.Connect()
		if err != nil {
			return fmt.Errorf("%w (to look at files alone: --use-kube=false)", err)
		}
		if in.Stored, err = analyze.Cluster(ctx, client, f.IstioNamespace); err != nil {
			return err
		}
	}
	found, err := analyze.Run(in, f.only...)
	if err != nil {
		return err
	}
	namespace, where := "", "all namespaces"
	if !f.all {
		namespace = f.DefaultNamespace()
		where = "namespace: " + namespace
	}
	found = analyze.Filter(found, namespace, suppressed)
	shown := analyze.AtLeast(found, f.threshold)
	if err := analyze.Print(out, shown, f.output, f.color); err != nil {
		return err
	}
	if len(shown) == 0 && f.output == "log" {
		if len(args) > 0 {
			where = strings.Join(args, " ")
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "✔ No validation issues found when analyzing %s.\n", where)
	}
	if f.output == "log" && len(analyze.AtLeast(found, f.failure)) > 0 {
		return exitError{exitIssues, fmt.Sprintf("Error: Analyzers found issues when analyzing %s.\nSee docs/analyze.md and https://istio.io/docs/reference/config/analysis for more information about causes and resolutions.", where)}
	}
	return nil
}
