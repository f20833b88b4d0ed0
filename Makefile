# Fairlead. `make help` lists what there is; README has the two commands that matter.
SHELL     := /bin/bash
BIN       := bin
CACHE     := .cache
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -X github.com/fairlead-mesh/fairlead/pkg/telemetry.Version=$(VERSION)
# Static binaries. grpcnotrace leaves out gRPC's debug pages: they pull in text/template, for which
# the linker keeps every exported method, a fifth of the binary and of an idle agent's memory.
GOBUILD   := CGO_ENABLED=0 go build -trimpath -tags grpcnotrace
HUB       ?= localhost/fairlead
TAG       ?= $(VERSION)
PLATFORMS ?= linux/amd64,linux/arm64
COMMANDS  := fairlead node-agent control-plane waypoint fairlead-cni
GOLANGCI  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GO_TEST   := go test -count=1 -timeout 20m

.DEFAULT_GOAL := help

## build: the product's binaries, in bin/
.PHONY: build
build:
	@mkdir -p $(BIN)
	$(GOBUILD) -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(COMMANDS))

## images: the container images as OCI archives with their SBOMs, in bin/images (HUB=..., TAG=..., PLATFORMS=linux/amd64)
.PHONY: images
images:
	@go run ./deploy/images --hub '$(HUB)' --tag '$(TAG)' --platform '$(PLATFORMS)' --out $(BIN)/images

## setup: the programs that the lab, the tests and the demo call (Debian packages)
.PHONY: setup
setup:
	@test/setup.sh

## demo: build, then a two-node mesh on this machine that shows what Fairlead does (KEEP=1 leaves it up)
.PHONY: demo
demo: setup build
	@go run ./test/demo

## test: unit, golden, fuzz seeds, BPF and lab scenarios, with the race detector (as root)
.PHONY: test
test: setup build
	@test/envoy/install.sh
	@test/run.sh

## test-envoy: our waypoint and a real Envoy, side by side: equal configuration and requests, equal outcomes
.PHONY: test-envoy
test-envoy:
	@test/envoy/install.sh
	DIFFERENTIAL=1 go test -count=1 -timeout 15m ./test/differential

## test-rows: canaries, ejection, limits, retries and faults with the numbers and times of the tutorial's manifests; canaries with a real Envoy as well (as root)
.PHONY: test-rows
test-rows: setup build
	@test/envoy/install.sh
	FAIRLEAD_ROWS=1 go test -count=1 -timeout 25m -run 'TestRow' ./test/e2e

## test-envoy-faults: faults seeded into our waypoint, each of which test-envoy must catch
.PHONY: test-envoy-faults
test-envoy-faults:
	@test/envoy/install.sh
	go run ./test/differential/faults

## kube-parts: the parts of real Kubernetes clusters for tests, built from the Go proxy, once (ten minutes cold, can run in the background)
.PHONY: kube-parts
kube-parts:
	@test/kube/build.sh $(PARTS)

## test-kube: Fairlead on real Kubernetes: API server, two nodes with kubelet and containerd, `fairlead install` (as root)
.PHONY: test-kube
test-kube: kube-setup kube-parts
	FAIRLEAD_KUBE=1 go test -count=1 -p 2 -timeout 40m ./test/kube/scenario $$(go list ./test/kube/... | grep -v -e /conformance -e /istioctl -e /scenario)

## test-conformance: the Gateway API's own suite on real nodes, profiles MESH-HTTP and MESH-GRPC: the results must be those of the report in docs/conformance (as root)
.PHONY: test-conformance
test-conformance: kube-setup kube-parts
	FAIRLEAD_KUBE=1 go test -count=1 -v -timeout 25m ./test/kube/conformance

## conformance-report: the same, and its report replaces the one in docs/conformance (as root)
.PHONY: conformance-report
conformance-report: export FAIRLEAD_CONFORMANCE_REPORT = $(CURDIR)/docs/conformance/v1.6.3-standard-default-report.yaml
conformance-report: test-conformance

.PHONY: kube-setup
kube-setup: setup
	@test/setup.sh containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins conntrack:conntrack

## test-interop: a real istiod drives our agents and our waypoint through the lab's scenarios, and istioctl reads what our parts show (as root; builds Istio once)
.PHONY: test-interop
test-interop: setup build
	@test/kube/build.sh kube istio
	FAIRLEAD_ISTIOD=1 go test -count=1 -timeout 40m -run 'TestScenarios|TestTour' ./test/e2e
	FAIRLEAD_KUBE=1 go test -count=1 -p 1 -timeout 10m -run 'TestIstioctl' ./test/e2e ./test/kube/istioctl
	ISTIOCTL="$$(test/kube/build.sh istio)/istioctl" go test -count=1 -run 'TestAsIstioctl' ./pkg/cli/...

## lint: vet, golangci-lint and the layer rules
.PHONY: lint
lint: $(CACHE)/golangci-lint
	go vet ./...
	$(CACHE)/golangci-lint run

$(CACHE)/golangci-lint: Makefile
	@mkdir -p $(CACHE)
	GOBIN=$(CURDIR)/$(CACHE) go install $(GOLANGCI)

## generate: the BPF objects, protobuf Go and the chart's CRDs, with pinned compilers and modules; CI compares the result
.PHONY: generate
generate:
	bpf/generate.sh
	api/generate.sh
	go run ./deploy/crds

## bench: Fairlead beside direct veth, TLS relays, Envoy and other proxies, interleaved (ARGS="--only w1,w2")
.PHONY: bench
bench: setup build
	@test/bench/waypoint/install.sh
	go run ./test/bench $(ARGS)

## clean: what the build left
.PHONY: clean
clean:
	rm -rf $(BIN) $(CACHE)

## help: this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{printf "  make %-10s %s\n", $$1, $$2}'
