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
# One package at a time: scenarios share two things that cannot be divided, the
# machine's cores and the cgroup root.
go test -json -race -count=1 -p "${TEST_PARALLEL:-1}" -timeout 25m "${@:-./...}" 2>&1 | "$report" "${no_skip[@]}"
