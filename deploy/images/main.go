// Command images builds the product's container images as OCI archives, for which
// neither a Docker engine nor a registry is needed, each with its SBOM beside it.
// `images single` makes an image of any one static binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/deploy/images/oci"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	var b builder
	root := &cobra.Command{
		Use:   "images",
		Short: "Build the product's images as OCI archives",
		Example: `  images --hub localhost/fairlead --tag dev --platform linux/amd64 --out bin/images
  images single --name localhost/pause:1 --binary /tmp/pause --out /tmp/pause.tar`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	flags := root.Flags()
	flags.StringVar(&b.hub, "hub", "localhost/fairlead", "what stands before an image's name")
	flags.StringVar(&b.tag, "tag", "dev", "the images' tag, and the version that the binaries say")
	flags.StringSliceVar(&b.platforms, "platform", []string{"linux/amd64", "linux/arm64"}, "platforms of each image")
	flags.StringVar(&b.out, "out", "bin/images", "directory for NAME.tar and NAME-ARCH.spdx.json")
	flags.StringSliceVar(&b.only, "only", nil, "names of the images to build (default all)")
	flags.StringVar(&b.tags, "tags", "", "further build tags, separated by commas")
	flags.StringVar(&b.ldflags, "ldflags", "-s -w", "further flags for the linker")
	root.AddCommand(newSingle())
	return root
}

func newSingle() *cobra.Command {
	var name, binary, arch, out, user string
	cmd := &cobra.Command{
		Use:   "single",
		Short: "Make an image of one static binary, which is its entrypoint",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			img := oci.Single(name, arch, binary)
			img.User = user
			if out == "" {
				out = path.Base(binary) + ".tar"
			}
			if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
				return err
			}
			return oci.WriteFile(out, img)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the image's full name with its tag")
	cmd.Flags().StringVar(&binary, "binary", "", "the static binary")
	cmd.Flags().StringVar(&arch, "arch", "amd64", "what the binary was built for")
	cmd.Flags().StringVar(&out, "out", "", "the archive (default BINARY.tar)")
	cmd.Flags().StringVar(&user, "user", "", "uid:gid (default root)")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.MarkFlagRequired("binary")
	return cmd
}
