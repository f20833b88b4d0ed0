package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Precheck returns a sentence for each thing that this machine lacks for capture.
// bpffs is where the BPF file system is, or "" for [BPFFS]; mounted is whether it must be
// there already: in a container.
func Precheck(bpffs string, mounted bool) []string {
	if os.Geteuid() != 0 {
		return []string{"The agent needs root with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_SYS_PTRACE: it loads programs into the kernel, and enters pods' namespaces."}
	}
	var missing []string
	add := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	if err := Blame((&Options{BPFFS: cmp.Or(bpffs, BPFFS), Mounted: mounted}).mount()); err != nil {
		add("Programs outlive the agent in the BPF file system: %v.", err)
	}
	if _, err := findCgroup2(); err != nil {
		add("Connections are captured at the root of cgroup v2: %v.", err)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		add("The kernel has no type information (CONFIG_DEBUG_INFO_BTF): %v.", err)
	}
	for _, f := range []struct {
		what, since string
		err         error
	}{
		{"programs at connect (BPF_PROG_TYPE_CGROUP_SOCK_ADDR)", "4.17", features.HaveProgramType(ebpf.CGroupSockAddr)},
		{"programs at TCP events (BPF_PROG_TYPE_SOCK_OPS)", "4.13", features.HaveProgramType(ebpf.SockOps)},
		{"programs at setsockopt (BPF_PROG_TYPE_CGROUP_SOCKOPT)", "5.3", features.HaveProgramType(ebpf.CGroupSockopt)},
		{"programs that choose a listener (BPF_PROG_TYPE_SK_LOOKUP)", "5.9", features.HaveProgramType(ebpf.SkLookup)},
		{"programs at devices (BPF_PROG_TYPE_SCHED_CLS)", "4.1", features.HaveProgramType(ebpf.SchedCLS)},
		{"storage on sockets (BPF_MAP_TYPE_SK_STORAGE)", "5.2", features.HaveMapType(ebpf.SkStorage)},
		{"tables of listeners (BPF_MAP_TYPE_SOCKHASH)", "4.18", features.HaveMapType(ebpf.SockHash)},
		{"namespace cookies at connect (bpf_get_netns_cookie)", "5.7", features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie)},
		{"namespace cookies at TCP events (bpf_get_netns_cookie)", "5.15", features.HaveProgramHelper(ebpf.SockOps, asm.FnGetNetnsCookie)},
	} {
		switch {
		case f.err == nil:
		case errors.Is(f.err, unix.EPERM):
			return append(missing, fmt.Sprintf("Programs cannot be loaded into the kernel: %v.", Blame(f.err)))
		case errors.Is(f.err, ebpf.ErrNotSupported):
			add("The kernel has no %s, which Linux has since %s; Fairlead needs Linux 5.15.", f.what, f.since)
		default:
			add("It cannot be told whether the kernel has %s: %v.", f.what, f.err)
		}
	}
	return missing
}
