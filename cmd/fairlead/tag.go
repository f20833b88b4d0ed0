package main

import (
	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/tag"
)

func newTag() *cobra.Command {
	f := &kube.Flags{}
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Revision tags: there is one revision, and what asks for another is listed",
		Long:  "With sidecars a tag chooses which control plane serves a namespace. " + tag.ErrOneRevision.Error() + ".",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f.Bind(cmd.PersistentFlags())
	cmd.AddCommand(&cobra.Command{
		Use: "list", Aliases: []string{"show"}, Short: "List the namespaces that ask for a revision", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.Connect()
			if err != nil {
				return err
			}
			return tag.List(cmd.Context(), client, cmd.OutOrStdout())
		},
	})
	for _, name := range []string{"set", "generate", "remove"} {
		refused := &cobra.Command{
			Use: name + " <revision-tag>", Short: "Says why there is nothing to " + name,
			DisableFlagParsing: true,
			RunE:               func(*cobra.Command, []string) error { return tag.ErrOneRevision },
		}
		cmd.AddCommand(refused)
	}
	return cmd
}
