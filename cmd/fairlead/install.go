package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/install"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/unclean"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// request are the flags that say what is to be installed, as istioctl has them.
type request struct {
	files, sets []string
	revision    string
	manifests   string
}

func (f *request) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.files, "filename", "f", nil, "an IstioOperator file, or one of the chart's values; - is standard input; later ones go before earlier ones")
	flags.StringArrayVarP(&f.sets, "set", "s", nil, "a field of an IstioOperator's spec, or a value of the chart, as path=value; may be repeated")
	flags.StringVarP(&f.revision, "revision", "r", "", "the revision; there is one, default")
	flags.StringVarP(&f.manifests, "manifests", "d", "", "not served: the chart is in the binary")
	_ = flags.MarkHidden("manifests")
}

// empty is whether nothing was asked for.
func (f *request) empty() bool { return len(f.files) == 0 && len(f.sets) == 0 && f.revision == "" }

func (f *request) read(stdin io.Reader) (*operator.Request, error) {
	if f.manifests != "" {
		return nil, run.Usage(errors.New("--manifests: the chart is the one that the binary carries; for another one use helm"))
	}
	var files []source.File
	for _, name := range f.files {
		in, err := io.Reader(nil), error(nil)
		if name == "-" {
			in = stdin
		} else {
			opened, err := os.Open(name)
			if err != nil {
				return nil, run.Usage(err)
			}
			defer opened.Close()
			in = opened
		}
		data, err := io.ReadAll(io.LimitReader(in, maxRequestFile))
		if err != nil {
			return nil, run.Usage(fmt.Errorf("%s: %w", name, err))
		}
		files = append(files, source.File{Name: name, Data: data})
	}
	sets := f.sets
	if f.revision != "" {
		sets = append(sets, "revision="+f.revision)
	}
	r, err := operator.Read(files, sets)
	if err != nil {
		return nil, run.Usage(err)
	}
	return r, nil
}

// manifest is what is asked for, and what an installation of it consists of.
func (f *request) manifest(stdin io.Reader) (*install.Manifest, *operator.Request, error) {
	r, err := f.read(stdin)
	if err != nil {
		return nil, nil, err
	}
	m, err := install.Build(r, telemetry.Version)
	if err != nil {
		return nil, nil, run.Usage(err)
	}
	return m, r, nil
}

// maxRequestFile bounds one file of a request.
const maxRequestFile = 8 << 20

// applying are the flags of commands that change a cluster.
type applying struct {
	yes, dryRun, force, verify bool
	timeout                    time.Duration
}

func (a *applying) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVarP(&a.yes, "skip-confirmation", "y", false, "go on without asking")
	flags.BoolVar(&a.dryRun, "dry-run", false, "say what would be done, and do nothing")
	flags.DurationVar(&a.timeout, "readiness-timeout", 5*time.Minute, "how long to wait for each part; 0 does not wait")
}

// confirm asks on a terminal, or reads an answer from a pipe.
func (a *applying) confirm(cmd *cobra.Command) func(string) (bool, error) {
	if a.yes {
		return nil
	}
	return func(question string) (bool, error) {
		fmt.Fprint(cmd.OutOrStdout(), question)
		answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return true, nil
		}
		return false, nil
	}
}

const installExamples = `  # The default profile, after a look at the plan.
  fairlead install

  # For development: small, with access logs.
  fairlead install --set profile=demo -y

  # What an IstioOperator file asks for, and one setting over it.
  fairlead install -f istio-install.yaml --set controlPlane.logLevel=debug -y

  # What would be done?
  fairlead install --set profile=production --dry-run

Exit codes: 0 installed; 1 the cluster refused or is not ready; 2 the request is wrong, and nothing was touched.`

func newInstall() *cobra.Command {
	var f request
	var a applying
	var k kube.Flags
	cmd := &cobra.Command{
		Use:     "install",
		Aliases: []string{"apply"},
		Short:   "Install the mesh into a cluster, or make it as it is asked for now",
		Long: `Renders the chart that the binary carries, shows what would be created, changed and
deleted, applies it with a field manager of its own, and waits until it is ready.
A second call changes nothing.`,
		Example: installExamples,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			return runInstall(cmd, &k, r, a)
		},
	}
	f.bind(cmd)
	a.bind(cmd)
	cmd.Flags().BoolVar(&a.force, "force", false, "take over objects that something else installed")
	cmd.Flags().BoolVar(&a.verify, "verify", false, "verify afterwards, as verify-install does")
	k.Bind(cmd.Flags())
	return cmd
}

func newUpgrade() *cobra.Command {
	var f request
	var a applying
	var k kube.Flags
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Upgrade the mesh to this binary's version, as it was asked for before",
		Long: `Installs this binary's version over the one in the cluster. What was asked for at the last
installation is asked for again, with -f and --set over it.`,
		Example: `  fairlead upgrade --dry-run
  fairlead upgrade -y
  fairlead upgrade --set controlPlane.logLevel=debug -y`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			c, err := k.Connect()
			if err != nil {
				return err
			}
			recorded, _, err := install.Recorded(cmd.Context(), c)
			if err != nil {
				return err
			}
			if recorded == nil && f.empty() {
				return install.ErrNotInstalled
			}
			if recorded != nil {
				r.Over(recorded)
			}
			if tag, ok := recorded.Tag(); ok && tag == r.Values["tag"] && tag != telemetry.Version {
				fmt.Fprintf(cmd.OutOrStdout(), "note: the images stay at the tag %s, as was asked for; --set tag=%s takes this version's\n", tag, telemetry.Version)
			}
			return runInstall(cmd, &k, r, a)
		},
	}
	f.bind(cmd)
	a.bind(cmd)
	cmd.Flags().BoolVar(&a.force, "force", false, "take over objects that something else installed")
	cmd.Flags().BoolVar(&a.verify, "verify", false, "verify afterwards, as verify-install does")
	k.Bind(cmd.Flags())
	return cmd
}

func runInstall(cmd *cobra.Command, k *kube.Flags, r *operator.Request, a applying) error {
	// What is wrong with the request is told before the cluster is asked for anything.
	if _, err := install.Build(r, telemetry.Version); err != nil {
		return run.Usage(err)
	}
	c, err := k.Connect()
	if err != nil {
		return err
	}
	err = install.Install(cmd.Context(), install.Options{
		Cluster: c, Request: r, Version: telemetry.Version, Adopt: a.force, DryRun: a.dryRun, Timeout: a.timeout, Confirm: a.confirm(cmd), Out: cmd.OutOrStdout(),
	})
	if err != nil || !a.verify || a.dryRun {
		return err
	}
	return install.Verify(cmd.Context(), c, nil, "", cmd.OutOrStdout())
}

func newUninstall() *cobra.Command {
	var a applying
	var k kube.Flags
	var purge bool
	var f request
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the mesh out of the cluster",
		Long: `Takes out what was installed and what the mesh made of it: agents clean their nodes
when they go. What a later installation would go on with stays: the definitions of
kinds with your objects, the CA's key. With --purge they go too.

A node that has no ready agent at that time is not cleaned. It is named, with the
command to run when it is up; the exit code is 3 then.`,
		Example: `  fairlead uninstall
  fairlead uninstall --purge -y`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// There is one installation, whatever names it.
			if _, err := f.read(cmd.InOrStdin()); err != nil {
				return err
			}
			c, err := k.Connect()
			if err != nil {
				return err
			}
			err = install.Uninstall(cmd.Context(), install.Options{Cluster: c, DryRun: a.dryRun, Timeout: a.timeout, Confirm: a.confirm(cmd), Out: cmd.OutOrStdout()}, install.Purge(purge))
			if left := (*unclean.Error)(nil); errors.As(err, &left) {
				return exitError{exitUnclean, "fairlead: " + left.Error()}
			}
			return err
		},
	}
	f.bind(cmd)
	a.bind(cmd)
	cmd.Flags().BoolVar(&purge, "purge", false, "also the definitions of kinds with all their objects, the CA's key and the namespace")
	k.Bind(cmd.Flags())
	return cmd
}

func newVerifyInstall() *cobra.Command {
	var f request
	var k kube.Flags
	cmd := &cobra.Command{
		Use:   "verify-install",
		Short: "Check that each installed object is there, unchanged and healthy",
		Long: `Compares the cluster with what was installed, or with what -f and --set ask for. The
exit code is 1, and the objects are named, if anything is missing, changed or not healthy.`,
		Example: `  fairlead verify-install
  fairlead verify-install -f istio-install.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			if f.empty() {
				r = nil
			}
			c, err := k.Connect()
			if err != nil {
				return err
			}
			return install.Verify(cmd.Context(), c, r, telemetry.Version, cmd.OutOrStdout())
		},
	}
	f.bind(cmd)
	k.Bind(cmd.Flags())
	return cmd
}

func newManifest() *cobra.Command {
	var f request
	var output string
	generate := &cobra.Command{
		Use:   "generate",
		Short: "Print what would be installed, as YAML",
		Example: `  fairlead manifest generate > mesh.yaml
  fairlead manifest generate --set profile=demo -o mesh.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, r, err := f.manifest(cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, n := range r.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
			}
			if output == "" {
				return m.Write(cmd.OutOrStdout())
			}
			file, err := os.Create(output)
			if err != nil {
				return run.Usage(err)
			}
			return errors.Join(m.Write(file), file.Close())
		},
	}
	f.bind(generate)
	generate.Flags().StringVarP(&output, "output", "o", "", "a file to write to; empty is standard output")
	cmd := &cobra.Command{Use: "manifest", Short: "What would be installed"}
	cmd.AddCommand(generate)
	return cmd
}
