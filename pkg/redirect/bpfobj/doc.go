// Package bpfobj is the kernel programs of bpf/, compiled, with the Go of their
// types. It is generated: `make generate`. Only pkg/redirect imports it.
package bpfobj
