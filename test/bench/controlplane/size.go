package main

import (
	"bytes"
	"compress/gzip"
	"fmt"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// sizes prints what a response of one resource consists of: the resource alone, which
// istiod's own benchmark counts (BenchmarkAddressIncrementalGeneration), what the
// protocol has around it, and what compressing all of it would leave.
func sizes(data []byte) error {
	var m discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	value, names := 0, 2*len(m.TypeUrl)*len(m.Resources)
	for _, r := range m.Resources {
		value += len(r.Resource.Value)
		names += len(r.Name)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	fmt.Printf("a response: %d resources of %d bytes, names of their types (each twice) and their own %d, the rest of %d versions and lengths; by gzip %d\n",
		len(m.Resources), value, names, len(data), packed.Len())
	return nil
}
