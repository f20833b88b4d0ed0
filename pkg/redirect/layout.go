//go:build !nextlayout

package redirect

// layout is the version of the pinned maps that may change. It changes with any of
// their types, and names their directory.
const layout = "v1"
