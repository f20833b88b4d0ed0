// Package tokenreview proves callers by asking a Kubernetes API server about their
// tokens (authentication.k8s.io/v1 TokenReview).
//
// A token is taken when the API server says that it is authentic, that it is meant for
// [token.Audience], and that it is bound to a pod that is on a node: name and uid of the
// pod and the node come from the review, never from the token's own text. What was
// proved holds for a short time, and never past the token's end, so that an agent which
// asks for a hundred certificates costs one review. Whoever sends wrong tokens is slowed
// down by where they come from, before the API server hears of it.
//
// The control plane needs, for its service account, in a ClusterRole:
//
//	apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"]
//
// cmd/control-plane constructs it; nothing else imports it.
package tokenreview
