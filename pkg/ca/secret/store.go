package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

const (
	// Own is the Secret of a root that the control plane made.
	Own = "istio-ca-secret"
	// PluggedIn is the Secret of a CA that somebody plugs in. It goes before Own.
	PluggedIn = "cacerts"
	// ownType is what Istio calls the type of Own.
	ownType corev1.SecretType = "istio.io/ca-root"
)

// Options of a [Store].
type Options struct {
	Secrets   typedcorev1.SecretInterface // of Namespace; must be non-nil
	Namespace string                      // for messages; must not be empty
	// TrustDomain is whose root a new one is said to be.
	TrustDomain string
	Holder      *ca.Holder   // must be non-nil
	Logger      *slog.Logger // must be non-nil
}

// Store takes the authority out of Secrets.
type Store struct {
	o Options
	// retry is how long a lost watch waits, and look how often the Secrets are read
	// whatever the watch says.
	retry, look time.Duration

	// Open's, then Run's.
	last *corev1.Secret // the one in force
	said string         // the last error that was said
}

// Open reads the Secrets, makes a root where there is none, and gives the holder its
// first authority. An error is final: a Secret that is wrong must be put right first,
// since another root would tear the mesh apart.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Secrets == nil || o.Namespace == "" || o.Holder == nil || o.Logger == nil {
		return nil, errors.New("ca secret: Secrets, Namespace, Holder and Logger must be set")
	}
	s := &Store{o: o, retry: time.Second, look: time.Minute}
	found, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	a, _, err := s.take(found)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put it right: nothing else may sign in its place", s.name(found.Name), err)
	}
	o.Holder.Set(a, s.name(found.Name))
	return s, nil
}

// find returns the Secret in force, and creates Own if there is none.
func (s *Store) find(ctx context.Context) (*corev1.Secret, error) {
	for _, name := range []string{PluggedIn, Own} {
		found, err := s.o.Secrets.Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return found, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("CA: read %s: %w", s.name(name), err)
		}
	}
	m, err := ca.Generate(s.o.TrustDomain)
	if err != nil {
		return nil, err
	}
	created, err := s.o.Secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: Own, Annotations: map[string]string{
			"fairlead.dev/note": "The mesh's root key: who has it can be anyone in the mesh. Without this Secret the mesh gets another root.",
		}},
		Type: ownType,
		Data: map[string][]byte{certKey: m.Cert, keyKey: m.Key, rootsKey: m.Cert},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		s.o.Logger.Info("a root of the mesh's own was made", "secret", s.name(Own))
		return created, nil
	case apierrors.IsAlreadyExists(err):
		// Another replica was first: its root is the mesh's.
		if created, err = s.o.Secrets.Get(ctx, Own, metav1.GetOptions{}); err == nil {
			return created, nil
		}
	}
	return nil, fmt.Errorf("CA: create %s: %w", s.name(Own), err)
}

func (s *Store) name(secret string) string { return "Secret " + s.o.Namespace + "/" + secret }
