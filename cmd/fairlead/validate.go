package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/files"
	"github.com/fairlead-mesh/fairlead/pkg/cli/validate"
)

func newValidate() *cobra.Command {
	var names []string
	cmd := &cobra.Command{
		Use:     "validate -f FILE|DIRECTORY...",
		Aliases: []string{"v"},
		Short:   "Validate the mesh's objects in files",
		Long: `Checks files of objects without a cluster: their fields, by name and type, and what they mean. An unknown field
is an error, with its file and line and the field that was probably meant. Files of the installer are checked too.`,
		Example: `  fairlead validate -f virtual-service.yaml
  fairlead validate -f manifests/
  kubectl get services -o yaml | fairlead validate -f -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			names = append(names, args...)
			if len(names) == 0 {
				return errors.New("must specify at least one --filename")
			}
			read, err := files.Read(cmd.InOrStdin(), names)
			if err != nil {
				return err
			}
			result := validate.Files(read, checkInstaller)
			result.Write(cmd.OutOrStdout(), cmd.ErrOrStderr())
			return result.Err()
		},
	}
	cmd.Flags().StringSliceVarP(&names, "filename", "f", nil, "Inputs of files or directories to validate")
	cmd.Flags().BoolP("referential", "x", true, "Accepted for istioctl's sake: references are looked at by analyze")
	return cmd
}
