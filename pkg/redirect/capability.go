package redirect

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities are what the agent needs, each.
var capabilities = []struct {
	name string
	bit  uint
}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE}}

// Blame names, where something was refused for want of rights, the capabilities that
// this process lacks of those that it needs. Other errors it returns as they are.
func Blame(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	status, rerr := os.ReadFile("/proc/self/status")
	if rerr != nil {
		return err
	}
	if names := lacking(string(status)); len(names) > 0 {
		return fmt.Errorf("%w: the agent lacks %s; see securityContext.capabilities of its container", err, strings.Join(names, " and "))
	}
	return err
}

// lacking reads a process's status (proc_pid_status(5)).
func lacking(status string) []string {
	_, rest, _ := strings.Cut(status, "CapEff:")
	text, _, _ := strings.Cut(rest, "\n")
	effective, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range capabilities {
		if effective&(1<<c.bit) == 0 {
			out = append(out, c.name)
		}
	}
	return out
}
