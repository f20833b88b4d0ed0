package tokenreview

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// What the API server says of a token beside its account
// (k8s.io/apiserver/pkg/authentication/serviceaccount).
const (
	podName  = "authentication.kubernetes.io/pod-name"
	podUID   = "authentication.kubernetes.io/pod-uid"
	nodeName = "authentication.kubernetes.io/node-name"

	accountPrefix = "system:serviceaccount:"
)

// callerOf reads a review.
func callerOf(s authenticationv1.TokenReviewStatus) (token.Caller, error) {
	if !s.Authenticated {
		if s.Error != "" {
			return token.Caller{}, fmt.Errorf("token: the API server does not take it: %s", s.Error)
		}
		return token.Caller{}, errors.New("token: the API server does not take it")
	}
	// An authenticator that knows no audiences answers without any.
	if !slices.Contains(s.Audiences, token.Audience) {
		return token.Caller{}, fmt.Errorf("token: it is meant for %q, not for %s", s.Audiences, token.Audience)
	}
	namespace, account, ok := strings.Cut(strings.TrimPrefix(s.User.Username, accountPrefix), ":")
	if !ok || !strings.HasPrefix(s.User.Username, accountPrefix) || namespace == "" || account == "" || strings.Contains(account, ":") {
		return token.Caller{}, fmt.Errorf("token: %q is no service account", s.User.Username)
	}
	c := token.Caller{Namespace: namespace, ServiceAccount: account}
	var err error
	extra := func(key string) string {
		values := s.User.Extra[key]
		if len(values) != 1 {
			return ""
		}
		return values[0]
	}
	c.Pod, c.PodUID, c.Node = extra(podName), extra(podUID), extra(nodeName)
	switch {
	case c.Pod == "" || c.PodUID == "":
		err = &token.UnboundError{Namespace: namespace, ServiceAccount: account}
	case c.Node == "":
		err = fmt.Errorf("token: that of pod %s/%s names no node: it was made before the pod was on one, or by a Kubernetes older than 1.32", c.Namespace, c.Pod)
	}
	if err != nil {
		return token.Caller{}, err
	}
	return c, nil
}
