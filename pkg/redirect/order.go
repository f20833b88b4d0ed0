package redirect

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// programPrefix begins the names of our programs: those of other instances are
// no strangers.
const programPrefix = "fl_"

// queryEffective asks for programs in the order that they run in (bpf.h).
const queryEffective = 1

// Displaced says, in a sentence each, which of the connect hooks another's
// program runs ahead of, or which are not attached any more. A socket load
// balancer ahead of us would hide services' addresses, and so their policy.
func (r *Redirector) Displaced() ([]string, error) {
	root, err := os.Open(r.opts.CgroupPath)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []string
	for _, hook := range []struct {
		name    string
		program *ebpf.Program
		attach  ebpf.AttachType
	}{
		{"connect4", r.connect.FlConnect4, ebpf.AttachCGroupInet4Connect},
		{"connect6", r.connect.FlConnect6, ebpf.AttachCGroupInet6Connect},
	} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: int(root.Fd()), Attach: hook.attach, QueryFlags: queryEffective})
		if err != nil {
			return nil, fmt.Errorf("programs at %s: %w", hook.name, err)
		}
		info, err := hook.program.Info()
		if err != nil {
			return nil, err
		}
		own, _ := info.ID()
		at := slices.IndexFunc(found.Programs, func(p link.AttachedProgram) bool { return p.ID == own })
		if at < 0 {
			out = append(out, fmt.Sprintf("%s: our program is not attached any more: restart the agent", hook.name))
			continue
		}
		for _, p := range found.Programs[:at] {
			if name := programName(p.ID); !strings.HasPrefix(name, programPrefix) {
				out = append(out, fmt.Sprintf("%s: program %d %q runs ahead of ours: services may be resolved before policy sees them", hook.name, p.ID, name))
			}
		}
	}
	return out, nil
}

// programName is "" for a program that has gone meanwhile.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
