package proxy

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Apply loads a ruleset inside the node's namespace, whole or not at all.
func Apply(ctx context.Context, ns *netns.NS, ruleset string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := ns.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("load service rules: %w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
