#!/usr/bin/env bash
# Runs every Go suite with the race detector. As root: capture, the lab and its
# scenarios need network namespaces and BPF.
set -uo pipefail
cd "$(dirname "$0")/.."

no_skip=()
if [ "${CI:-}" = true ]; then
  no_skip=(-no-skip 'root')
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "test: not root: the tests that need network namespaces and BPF are skipped (sudo make test runs them)" >&2
fi
report=$(mktemp)
trap 'rm -f "$report"' EXIT
go build -o "$report" ./test/report || exit 1
# Tests that enter network namespaces share two things that cannot be divided, the machine's
# cores and the cgroup root: their packages come one at a time, after the others.
packages=$(go list -race -test -f '{{if .ForTest}}{{.ForTest}} {{join .Deps " "}}{{end}}' "${@:-./...}") || exit 1
names() { cut -d' ' -f1 | sort -u; }
apart=$(grep -E '/pkg/netns( |$)' <<<"$packages" | names)
beside=$(names <<<"$packages" | comm -23 - <(echo "$apart"))
suite() { # how many packages at a time, packages
  [ -z "$2" ] || xargs go test -json -race -count=1 -p "$1" -timeout 25m <<<"$2" 2>&1
}
{ suite 2 "$beside"; first=$?; suite 1 "$apart" && exit "$first"; } | "$report" "${no_skip[@]}"
