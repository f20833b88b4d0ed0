package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/run"
)

func newProfile() *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "The profiles that can be installed"}
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles, with what each is for",
		Example: "  fairlead profile list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range chart.Profiles() {
				_, text, err := chart.Profile(name)
				if err != nil {
					return err
				}
				first, _, _ := strings.Cut(text, "\n")
				_, about, _ := strings.Cut(first, ": ")
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", name, about)
			}
			return nil
		},
	}
	dump := &cobra.Command{
		Use:   "dump [PROFILE]",
		Short: "Print all values of a profile",
		Example: `  fairlead profile dump production
  diff <(fairlead profile dump) <(fairlead profile dump demo)`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := chart.DefaultProfile
			if len(args) == 1 {
				name = args[0]
			}
			values, err := chart.Release{Profile: name}.Effective()
			if err != nil {
				return run.Usage(err)
			}
			text, err := yaml.Marshal(values)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.AddCommand(list, dump)
	return cmd
}
