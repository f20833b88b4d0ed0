// Package analyze finds what is wrong, or does not do what it seems to, in a mesh's
// objects: in files, in a cluster, or in files as they would be after they were applied
// to it. Messages and codes are those of `istioctl analyze` where it has one for the
// finding; the others begin with FL and stand in docs/analyze.md.
//
// It is pure: objects in, messages out. For cmd/fairlead and tests.
package analyze
