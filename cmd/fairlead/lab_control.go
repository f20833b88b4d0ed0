package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
)

func newDown() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "End a lab and remove all of it",
		Long:    "Ends a lab and removes all of it, also what one that was killed left behind.",
		Example: "  fairlead lab down\n  fairlead lab down --all",
		Args:    cobra.NoArgs,
	}
	name := nameFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names := []string{*name}
		if *name == "" {
			running, left, err := lab.Labs()
			if err != nil {
				return err
			}
			names = append(running, left...)
			if len(names) > 1 && !all {
				return fmt.Errorf("several labs are there: say which by --name, or --all: %v", names)
			}
			if len(names) == 0 {
				return nil // nothing is what down leaves
			}
		}
		var errs []error
		for _, n := range names {
			errs = append(errs, lab.Down(cmd.Context(), n))
		}
		return errors.Join(errs...)
	}
	return cmd
}

func newKill() *cobra.Command {
	var graceful bool
	cmd := &cobra.Command{
		Use:     "kill agent/NODE | control-plane",
		Short:   "Kill a process of the mesh; it stays down until `lab start`",
		Example: "  fairlead lab kill agent/n1\n  fairlead lab kill --graceful control-plane",
		Args:    cobra.ExactArgs(1),
	}
	name := nameFlag(cmd)
	cmd.Flags().BoolVar(&graceful, "graceful", false, "ask it to end (SIGTERM) in place of SIGKILL")
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		return c.Kill(cmd.Context(), args[0], graceful)
	})
	return cmd
}

func newStart() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "start agent/NODE | control-plane",
		Short:   "Start a process of the mesh that was killed",
		Example: "  fairlead lab start agent/n1",
		Args:    cobra.ExactArgs(1),
	}
	name := nameFlag(cmd)
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		return c.Start(cmd.Context(), args[0])
	})
	return cmd
}

func newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete pod POD",
		Short:   "Delete a pod; what wants it makes another",
		Example: "  fairlead lab delete pod productpage",
		Args:    cobra.ExactArgs(2),
	}
	name := nameFlag(cmd)
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		if args[0] != "pod" {
			return fmt.Errorf("the lab deletes pods; for a %s take it out of the directory", args[0])
		}
		p, err := c.DeletePod(cmd.Context(), args[1])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "pod %s/%s is being deleted\n", p.Namespace, p.Name)
		return nil
	})
	return cmd
}
