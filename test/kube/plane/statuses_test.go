package plane

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// routesOf is how many routes there are where statuses are counted; FAIRLEAD_KUBE_ROUTES
// has another number.
func routesOf(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FAIRLEAD_KUBE_ROUTES")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Of many objects each status is written once, by a control plane that finds them, and by
// none that finds them written.
func TestEachStatusIsWrittenOnce(t *testing.T) {
	p := installed(t, "statuses")
	p.Apply(waypointWith(""))
	p.Kubectl("label", "namespace", "shop", "istio.io/use-waypoint=waypoint")
	p.Until("the waypoint", func() bool {
		return strings.HasPrefix(p.condition("gateway", "shop", "waypoint", "Programmed"), "True")
	})
	p.Stop()
	n := routesOf(t)
	config, err := p.Cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	create := func(group, version, resource string, object map[string]any) {
		_, err := client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}).Namespace("shop").
			Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
		if err != nil {
			t.Error(err)
		}
	}
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				name := fmt.Sprintf("s%d", i)
				meta := map[string]any{"name": name, "namespace": "shop"}
				create("", "v1", "services", map[string]any{
					"apiVersion": "v1", "kind": "Service", "metadata": meta,
					"spec": map[string]any{"selector": map[string]any{"app": name}, "ports": []any{map[string]any{"name": "http", "port": int64(80)}}},
				})
				create("gateway.networking.k8s.io", "v1", "httproutes", map[string]any{
					"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta,
					"spec": map[string]any{
						"parentRefs": []any{map[string]any{"group": "", "kind": "Service", "name": name, "port": int64(80)}},
						"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": name, "port": int64(80)}}}},
					},
				})
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	written := func(kind string) int {
		for line := range strings.Lines(p.Get("/metrics")) {
			var count int
			if _, err := fmt.Sscanf(line, `fairlead_status_writes_total{kind="`+kind+`",result="ok"} %d`, &count); err == nil {
				return count
			}
		}
		return 0
	}
	start := time.Now()
	p.Run()
	p.Until("all of them", func() bool { return written("HTTPRoute") >= n && written("Service") >= n })
	t.Logf("%d statuses after %v", 2*n, time.Since(start))
	// One that is edited is the last: what comes before it in the queues has been written.
	p.Kubectl("label", "service", "-n", "shop", "s0", "istio.io/use-waypoint=none")
	p.Until("the edit", func() bool { return p.condition("service", "shop", "s0", "istio.io/WaypointBound") == "" })
	p.Until("its route", func() bool { return written("HTTPRoute") > n })
	if routes, services := written("HTTPRoute"), written("Service"); routes != n+1 || services != n+1 {
		t.Errorf("%d writes of routes and %d of services, want %d each", routes, services, n+1)
	}
	p.Stop()
	p.Run()
	p.Kubectl("label", "service", "-n", "shop", "s0", "istio.io/use-waypoint-")
	p.Until("the edit", func() bool { return p.condition("service", "shop", "s0", "istio.io/WaypointBound") != "" })
	p.Until("its route", func() bool { return written("HTTPRoute") > 0 })
	if routes, services := written("HTTPRoute"), written("Service"); routes != 1 || services != 1 {
		t.Errorf("%d writes of routes and %d of services after a start, want one each", routes, services)
	}
}
