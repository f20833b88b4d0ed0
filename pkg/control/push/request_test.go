package push

import (
	"fmt"
	"maps"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// FuzzRequest holds that a request is read as proto reads it, or refused where proto
// refuses it.
func FuzzRequest(f *testing.F) {
	for _, q := range []*discovery.DeltaDiscoveryRequest{
		{TypeUrl: AddressType, ResponseNonce: "1"},
		{Node: &core.Node{Id: "n"}, TypeUrl: AddressType, InitialResourceVersions: map[string]string{"a": "1", "b": "", "": "2"}, ResourceNamesSubscribe: []string{"*"}, ResponseNonce: "x"},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...)) // fields may come again
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want discovery.DeltaDiscoveryRequest
		wrong := proto.Unmarshal(b, &want)
		var r request
		err := r.decode(b)
		if wrong != nil {
			return // proto looks at the texts of what is held as well
		}
		if err != nil {
			t.Fatalf("%v, and proto takes it", err)
		}
		held := map[string]string{}
		for name, version := range r.held.all() {
			held[string(name)] = string(version)
		}
		if !maps.Equal(held, want.InitialResourceVersions) {
			t.Errorf("held %q, want %q", held, want.InitialResourceVersions)
		}
		want.InitialResourceVersions = nil
		if !proto.Equal(&want, r.DeltaDiscoveryRequest) {
			t.Errorf("%v, want %v", r.DeltaDiscoveryRequest, &want)
		}
	})
}

// BenchmarkReconnect is a client that comes back and holds all of 30,000 workloads.
func BenchmarkReconnect(b *testing.B) {
	log := NewLog()
	all := map[string]proto.Message{}
	for i := range 30_000 {
		all[fmt.Sprintf("Kubernetes//Pod/namespace-%d/some-deployment-7c9f6d5b4-%05d", i%10, i)] = &core.Node{Id: fmt.Sprint(i)}
	}
	if _, err := log.Set(Resources{AddressType: all}); err != nil {
		b.Fatal(err)
	}
	versions := map[string]string{}
	for name, r := range log.types[AddressType] {
		versions[name] = r.version
	}
	message, err := proto.Marshal(&discovery.DeltaDiscoveryRequest{TypeUrl: AddressType, InitialResourceVersions: versions})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var r request
		if err := r.decode(message); err != nil {
			b.Fatal(err)
		}
		if d := log.everythingLocked(AddressType, r.held); !d.empty() {
			b.Fatal("something is sent to a client that has it")
		}
	}
}
