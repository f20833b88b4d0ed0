package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// store is the etcd of a cluster of test/kube: objects that are put into it are as if
// the API server had written them, in a tenth of the time. Its watchers are told.
type store struct {
	conn *grpc.ClientConn
	code runtime.Encoder
}

// openStore is nil where there is no such etcd: a cluster of another kind.
func openStore(kubeconfig string) (*store, error) {
	socket := filepath.Join(filepath.Dir(kubeconfig), "etcd.sock")
	if _, err := os.Stat(socket); err != nil {
		return nil, nil //nolint:nilerr // then it is no such cluster
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &store{conn, protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)}, nil
}

func (s *store) close() {
	if s != nil {
		_ = s.conn.Close()
	}
}

// object is what can be put: with its name and, where it has one, its namespace.
type object interface {
	runtime.Object
	metav1.Object
}

// put writes an object under a resource's key. What it replaces has the same uid, which
// follows from the name.
func (s *store) put(ctx context.Context, resource string, o object) error {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		return fmt.Errorf("%s %s: %w", resource, o.GetName(), err)
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	o.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	o.SetUID(uidOf(resource + "/" + o.GetNamespace() + "/" + o.GetName()))
	var value bytes.Buffer
	if err := s.code.Encode(o, &value); err != nil {
		return fmt.Errorf("encode %s %s: %w", resource, o.GetName(), err)
	}
	key := strings.Join([]string{"/registry", resource, o.GetNamespace(), o.GetName()}, "/")
	if o.GetNamespace() == "" {
		key = strings.Join([]string{"/registry", resource, o.GetName()}, "/")
	}
	request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	request = protowire.AppendBytes(protowire.AppendTag(request, 2, protowire.BytesType), value.Bytes())
	if err := s.conn.Invoke(ctx, "/etcdserverpb.KV/Put", &raw{request}, &raw{}, grpc.ForceCodecV2(rawCodec{})); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// uidOf is a UUID that follows from a text.
func uidOf(text string) types.UID {
	sum := sha256.Sum256([]byte(text))
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// seen waits until the API server lists what was put.
func seen(ctx context.Context, kube kubernetes.Interface) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"bench/filled":%q}}}`, time.Now().Format(time.RFC3339Nano))
	after, err := kube.CoreV1().Namespaces().Patch(ctx, system, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	newer := metav1.ListOptions{ResourceVersion: after.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, Limit: 1}
	if _, err := kube.CoreV1().Pods(corev1.NamespaceAll).List(ctx, newer); err != nil {
		return err
	}
	_, err = kube.DiscoveryV1().EndpointSlices(corev1.NamespaceAll).List(ctx, newer)
	return err
}
