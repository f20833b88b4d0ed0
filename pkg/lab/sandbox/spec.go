package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Arg is the first argument by which the fairlead binary knows that it is a child
// of [Start] and should call [Enter].
const Arg = "__sandbox"

// specFD is where the child reads its Spec.
const specFD = 3

// Spec is what a process finds around it.
type Spec struct {
	// NetNS is the path of the network namespace to be born in.
	NetNS string `json:"netns"`
	// Cgroup is the directory of the cgroup2 to be born in, or empty.
	Cgroup string `json:"cgroup,omitempty"`
	// Bare leaves the machine's mounts and host name as they are: for the mesh's own
	// processes.
	Bare bool `json:"bare,omitempty"`
	// Hostname of the process, or empty for the machine's.
	Hostname string `json:"hostname,omitempty"`
	// Files are put over files of the machine: target to source.
	Files map[string]string `json:"files,omitempty"`
	// Dirs are directories put over directories of the machine: target to source.
	Dirs map[string]string `json:"dirs,omitempty"`
	// Hide are directories that are empty for the process.
	Hide []string `json:"hide,omitempty"`
	// Detach are mounts that the process has nothing to do with.
	Detach []string `json:"detach,omitempty"`
	// Env is the whole environment.
	Env []string `json:"env,omitempty"`
	// Dir is the working directory, or empty for this one.
	Dir string `json:"dir,omitempty"`
	// Argv is the program, found in Env's PATH, and its arguments.
	Argv []string `json:"argv,omitempty"`
	// Program, instead of Argv, is one that the fairlead binary carries.
	Program *Program `json:"program,omitempty"`
}

// Program names one of the programs of pkg/lab/app.
type Program struct {
	Name string   `json:"name"`
	Args []string `json:"args,omitempty"`
}

// Stdio is what a process reads from and writes to.
type Stdio struct{ In, Out, Err *os.File }

// Start starts a process as spec says. The caller waits for it. A process of the
// background has a session of its own, so that a Ctrl-C for the lab is not for it.
func Start(spec Spec, stdio Stdio, background bool) (*exec.Cmd, error) {
	what := "process"
	switch {
	case spec.Program != nil:
		what = spec.Program.Name
	case len(spec.Argv) > 0:
		what = filepath.Base(spec.Argv[0])
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	defer r.Close()
	defer w.Close()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{what, Arg}, Env: spec.Env, ExtraFiles: []*os.File{r}}
	if stdio.In != nil {
		cmd.Stdin = stdio.In
	}
	cmd.Stdout, cmd.Stderr = stdio.Out, stdio.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: background}
	if !spec.Bare {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS
	}
	if spec.Cgroup != "" {
		f, err := os.Open(spec.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("start %s in its cgroup: %w", what, err)
		}
		defer f.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	ns, err := netns.Open(spec.NetNS)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	defer ns.Close()
	if err := ns.Start(cmd); err != nil {
		return nil, err
	}
	// The child reads while this writes: a large environment does not fit the pipe.
	_ = r.Close()
	if _, err := w.Write(text); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: hand over what to do: %w", what, err)
	}
	return cmd, nil
}

// readSpec reads what Start wrote.
func readSpec() (Spec, error) {
	f := os.NewFile(specFD, "spec")
	if f == nil {
		return Spec{}, fmt.Errorf("%s is not for people: the lab starts it", Arg)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return Spec{}, err
	}
	var s Spec
	return s, json.Unmarshal(text, &s)
}
