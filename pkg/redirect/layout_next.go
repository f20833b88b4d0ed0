//go:build nextlayout

package redirect

// layout is that of a version of tests: see bpf/lib/types.h.
const layout = "v2"
