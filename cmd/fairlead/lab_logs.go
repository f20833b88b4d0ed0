package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
)

func newLogs() *cobra.Command {
	var follow bool
	var container string
	cmd := &cobra.Command{
		Use:   "logs [POD | agent/NODE | control-plane]",
		Short: "Show what a pod, an agent, the control plane or the lab wrote",
		Example: `  fairlead lab logs productpage
  fairlead lab logs agent/n1 -f
  fairlead lab logs control-plane
  fairlead lab logs`,
		Args: cobra.MaximumNArgs(1),
	}
	name := nameFlag(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written later")
	cmd.Flags().StringVarP(&container, "container", "c", "", "of a pod with several")
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		path, err := logFile(cmd.Context(), c, args, container)
		if err != nil {
			return err
		}
		return printLog(cmd.Context(), cmd.OutOrStdout(), path, follow)
	})
	return cmd
}

func logFile(ctx context.Context, c *lab.Client, args []string, container string) (string, error) {
	switch {
	case len(args) == 0:
		return lab.LogFile(c.Name, "lab"), nil
	case args[0] == "control-plane" || strings.HasPrefix(args[0], "agent/"):
		return lab.LogFile(c.Name, args[0]), nil
	}
	p, err := c.Find(ctx, args[0])
	if err != nil {
		return "", err
	}
	for _, k := range p.Containers {
		if container == "" || k.Name == container {
			return k.LogFile, nil
		}
	}
	return "", fmt.Errorf("pod %s/%s has no container %q", p.Namespace, p.Name, container)
}

// followEvery is how often a followed file is looked at.
const followEvery = 100 * time.Millisecond

func printLog(ctx context.Context, out io.Writer, path string, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("nothing was written there yet")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		n, err := io.Copy(out, f)
		if err != nil || !follow {
			return err
		}
		if n == 0 { // perhaps it was cut and began anew
			at, aerr := f.Seek(0, io.SeekCurrent)
			info, serr := f.Stat()
			if aerr == nil && serr == nil && info.Size() < at {
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
