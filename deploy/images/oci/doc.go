// Package oci makes container images out of static binaries, and writes them as
// archives that `ctr -n k8s.io images import`, podman and skopeo read.
//
// Nothing is pulled and no engine runs: an [Image] is its files on an empty base.
// The same files give the same bytes: times are zero, entries are sorted, owners are root.
//
// The image builder (deploy/images) and the tests' clusters use it; the product does not.
package oci
