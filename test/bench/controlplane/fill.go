package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// size is what a world holds beside the agents: pods, and as many EndpointSlices as asked
// for, of one pod each.
type size struct{ pods, slices, agents int }

const (
	namespaces = 10
	system     = "istio-system"
)

// ofService is how many pods a service has; the command line sets it.
var ofService int

func address(i int, second byte) string {
	return fmt.Sprintf("10.%d.%d.%d", second+byte(i>>16), byte(i>>8), byte(i))
}

// each does something for every number below n, many at once.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(48)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// fill writes the objects of a world; what is there stays, or becomes the same again.
// Nodes, pods and EndpointSlices go straight to the API server's etcd where there is one
// at hand (store is not nil): 60,000 of them in a minute instead of half an hour.
func fill(ctx context.Context, kube kubernetes.Interface, store *store, s size) error {
	made := func(err error) error {
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if err := each(ctx, namespaces+1, func(ctx context.Context, i int) error {
		name := system
		if i < namespaces {
			name = fmt.Sprint("n", i)
		}
		_, err := kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return made(err)
	}); err != nil {
		return err
	}
	_, err := kube.CoreV1().ServiceAccounts(system).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ztunnel"}}, metav1.CreateOptions{})
	if err := made(err); err != nil {
		return err
	}
	nodes := max(s.agents, 100)
	if err := each(ctx, nodes, func(ctx context.Context, i int) error {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i), Labels: map[string]string{corev1.LabelTopologyRegion: "r1", corev1.LabelTopologyZone: fmt.Sprint("z", i%3)}}}
		if store != nil {
			return store.put(ctx, "minions", node)
		}
		_, err := kube.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		return made(err)
	}); err != nil {
		return err
	}
	if err := each(ctx, s.pods, func(ctx context.Context, i int) error {
		return createPod(ctx, kube, store, appPod(i, nodes), address(i, 20))
	}); err != nil {
		return err
	}
	if err := each(ctx, s.agents, func(ctx context.Context, i int) error {
		return createPod(ctx, kube, store, agentPod(i), address(i, 10))
	}); err != nil {
		return err
	}
	// Kubernetes makes slices of its own, once if the pods are there before their services.
	if err := each(ctx, (s.pods+ofService-1)/ofService, func(ctx context.Context, i int) error {
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": fmt.Sprint("s", i)}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}
		_, err := kube.CoreV1().Services(fmt.Sprint("n", i%namespaces)).Create(ctx, service, metav1.CreateOptions{})
		return made(err)
	}); err != nil {
		return err
	}
	if err := each(ctx, s.slices, func(ctx context.Context, i int) error {
		of, name, ready := i/ofService, "http", true
		port := int32(80)
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: fmt.Sprint("slice-", i), Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("s", of)}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address(i, 20)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: appPod(i, nodes).Name}}},
		}
		if slice.Namespace = fmt.Sprint("n", of%namespaces); store != nil {
			return store.put(ctx, "endpointslices", slice)
		}
		_, err := kube.DiscoveryV1().EndpointSlices(slice.Namespace).Create(ctx, slice, metav1.CreateOptions{})
		return made(err)
	}); err != nil {
		return err
	}
	return seen(ctx, kube)
}

// appPod is a pod as a Deployment makes it, of the size that such are; without an owner,
// as a pod whose owner is not there is collected.
func appPod(i, nodes int) *corev1.Pod {
	of := i / ofService
	app := fmt.Sprint("s", of)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-7c9f6d5b4-%05d", app, i), Namespace: fmt.Sprint("n", of%namespaces),
			Labels:      map[string]string{"app": app, "version": "v1", "pod-template-hash": "7c9f6d5b4"},
			Annotations: map[string]string{"ambient.istio.io/redirection": "enabled", "example.com/checksum": strings.Repeat("0123456789abcdef", 4)},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprint("node-", i%nodes), Containers: []corev1.Container{{
			Name: "app", Image: "registry.example.com/shop/app:1.2.3", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
	}
	for e := range 20 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", e), Value: "a value of some length"})
	}
	return pod
}

func agentPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ztunnel-%05d", i), Namespace: system, Labels: map[string]string{"app": "ztunnel"}},
		Spec:       corev1.PodSpec{NodeName: fmt.Sprint("node-", i), ServiceAccountName: "ztunnel", Containers: []corev1.Container{{Name: "node-agent", Image: "node-agent"}}},
	}
}

func createPod(ctx context.Context, kube kubernetes.Interface, store *store, pod *corev1.Pod, ip string) error {
	if store != nil {
		pod.Status = statusOf(ip, true)
		return store.put(ctx, "pods", pod)
	}
	_, err := kube.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	for apierrors.IsForbidden(err) { // its namespace has no service account yet
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		_, err = kube.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return setReady(ctx, kube, pod, ip, true)
}

// setReady writes a pod's status, as its kubelet would.
func setReady(ctx context.Context, kube kubernetes.Interface, pod *corev1.Pod, ip string, ready bool) error {
	pod = pod.DeepCopy()
	pod.Status = statusOf(ip, ready)
	_, err := kube.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

func statusOf(ip string, ready bool) corev1.PodStatus {
	now, condition := metav1.Now(), corev1.ConditionFalse
	if ready {
		condition = corev1.ConditionTrue
	}
	status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "192.168.0.1", StartTime: &now}
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	status.Conditions = append(status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: condition, LastTransitionTime: now})
	return status
}

// tokens are those of the agents' pods, in files.
func tokens(ctx context.Context, kube kubernetes.Interface, n int, dir string) ([]agent, error) {
	agents := make([]agent, n)
	expires := int64(4 * 3600)
	err := each(ctx, n, func(ctx context.Context, i int) error {
		pod, err := kube.CoreV1().Pods(system).Get(ctx, agentPod(i).Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		token, err := kube.CoreV1().ServiceAccounts(system).CreateToken(ctx, "ztunnel", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"istio-ca"}, ExpirationSeconds: &expires,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprint("token-", i))
		agents[i] = agent{node: pod.Spec.NodeName, pod: pod.Name, tokenFile: path, ip: net.IPv4(127, 1, byte(i>>8), byte(i))}
		return os.WriteFile(path, []byte(token.Status.Token), 0o600)
	})
	if len(agents) == 0 {
		return nil, errors.Join(err, errors.New("no agents were asked for"))
	}
	return agents, err
}
