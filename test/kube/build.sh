#!/usr/bin/env bash
# Builds the parts of real clusters for tests, from the Go proxy, once: into
# .cache/parts of the repository's main working tree, so that all working trees share them
# ($FAIRLEAD_PARTS chooses another place). One set of flags everywhere: another one is a
# cold build of Kubernetes. `build.sh node` builds that part alone; parts: kube coredns
# metrics helm conformance istio node.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${FAIRLEAD_PARTS:-$(dirname "$(git rev-parse --path-format=absolute --git-common-dir)")/.cache/parts}
mkdir -p "$out"
exec 9>"$out/.lock"
flock -n 9 || { echo "kube-parts: another build runs; waiting for it" >&2; flock 9; }
export CGO_ENABLED=0 GOTOOLCHAIN=local
version=v1.36.3
stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"

# What a part is built from: the same sources by the same compiler are not linked again.
sources() { # directory...
  { go version; cat test/kube/build.sh; find "$@" -maxdepth 2 \( -name 'go.*' -o -name '*.go' \) -type f | LC_ALL=C sort | xargs cat; } | sha256sum
}
# Programs are put in their places complete: some may be running.
new=$out/.new
build() {
  rm -rf "$new" && mkdir -p "$new"
  case $1 in
  node) go build -trimpath -ldflags '-s -w' -o "$new/node" ./test/kube/cmd/node ;;
  kube)
    (cd test/kube/parts && go build -trimpath -ldflags "-s -w $stamp" -o "$new/kubeparts" .)
    for name in control-plane kubelet kube-proxy kubectl; do ln -s kubeparts "$new/$name"; done
    ;;
  coredns) (cd test/kube/coredns && go build -trimpath -ldflags '-s -w' -o "$new/coredns" .) ;;
  metrics) (cd test/kube/parts/metrics && go build -trimpath -ldflags '-s -w' -o "$new/metrics-server" .) ;;
  helm) (cd test/kube/parts/helm && go build -trimpath -ldflags '-s -w' -o "$new/helm" helm.sh/helm/v4/cmd/helm) ;;
  conformance) (cd test/conformance && go test -c -trimpath -ldflags '-s -w' -o "$new/conformance.test" .) ;;
  istio)
    (cd test/interop && go build -trimpath -ldflags '-s -w' -o "$new/" istio.io/istio/pilot/cmd/pilot-discovery \
      istio.io/istio/istioctl/cmd/istioctl istio.io/istio/pkg/test/echo/cmd/server istio.io/istio/pkg/test/echo/cmd/client)
    # What an installation of it consists of beside the binaries: kinds, templates, values.
    istiod=$(cd test/interop && go list -m -f '{{.Dir}}' istio.io/istio)/manifests/charts
    gateway=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/experimental
    mkdir -p "$out/istio/crds"
    install -m 644 "$istiod"/base/files/crd-all.gen.yaml "$gateway"/gateway.networking*.yaml "$out/istio/crds/"
    install -m 644 "$istiod"/istio-control/istio-discovery/{values.yaml,files/waypoint.yaml,files/kube-gateway.yaml} "$out/istio/"
    ;;
  *) echo "kube-parts: no part $1: node kube coredns metrics helm conformance istio" >&2; exit 2 ;;
  esac
  mv -f "$new"/* "$out/"
}
declare -A from=([kube]=test/kube/parts [coredns]=test/kube/coredns [metrics]=test/kube/parts/metrics [helm]=test/kube/parts/helm [conformance]=test/conformance [istio]=test/interop)
[ $# -gt 0 ] || set -- node kube coredns metrics helm conformance istio
for part; do
  begin=$SECONDS want=
  if [ -n "${from[$part]:-}" ]; then
    want=$(sources "${from[$part]}")
    [ "$want" != "$(cat "$out/.$part.sources" 2>/dev/null)" ] || continue
  fi
  echo "kube-parts: $part (cold: minutes; warm: seconds) ..." >&2
  build "$part"
  echo "$want" >"$out/.$part.sources"
  echo "kube-parts: $part is there after $((SECONDS - begin)) s" >&2
done
echo "$out"
