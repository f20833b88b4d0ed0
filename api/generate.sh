#!/usr/bin/env bash
# Regenerates the Go of the wire's messages. Both compilers are pinned, so the
# result is the same on every machine.
set -euo pipefail
cd "$(dirname "$0")/.."
want_protoc="libprotoc 3.21.12"
gen=google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12

if ! command -v protoc >/dev/null 2>&1; then
  [ "$(id -u)" -eq 0 ] && apt-get update -qq && apt-get install -y -qq protobuf-compiler libprotobuf-dev >/dev/null
fi
have=$(protoc --version)
if [ "$have" != "$want_protoc" ]; then
  echo "generate: protoc is \"$have\", want \"$want_protoc\" (Debian 12: protobuf-compiler)" >&2
  exit 1
fi
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
GOBIN=$tools go install "$gen"
PATH=$tools:$PATH protoc -I api --go_out=. --go_opt=module=github.com/fairlead-mesh/fairlead \
  api/workload/workload.proto api/security/authorization.proto
