#!/usr/bin/env bash
# Puts each fault of faults/ into a copy of the tree, builds the waypoint of it, and runs
# the test that the patch names: it must fail. Prints a line per fault; names of faults as
# arguments run those alone.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DIFFERENTIAL=1 DIFFERENTIAL_WAYPOINT="$work/waypoint"
export ENVOY_INSTALL_DIR="${ENVOY_INSTALL_DIR:-$root/.cache/envoy}"

mkdir "$work/tree"
(cd "$root" && git ls-files -z -- go.mod go.sum api pkg cmd bpf | tar --null -T - -cf -) | tar -xf - -C "$work/tree" || exit 1
(cd "$root" && go test -c -o "$work/suite" ./test/differential) || exit 1
patches=("$@")
[ $# -gt 0 ] || patches=(faults/*.patch)
missed=0
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  patch=faults/$name.patch
  test=$(sed -n 's/^caught by: //p' "$patch")
  patch --quiet --strip=1 --directory="$work/tree" <"$patch" || { echo "faults: $name does not apply: make it anew" >&2; exit 1; }
  if ! (cd "$work/tree" && CGO_ENABLED=0 go build -tags grpcnotrace -o "$work/waypoint" ./cmd/waypoint); then
    echo "faults: $name does not build" >&2
    exit 1
  fi
  if "$work/suite" -test.run "^$test\$" -test.timeout 5m >"$work/out" 2>&1; then
    echo "MISSED  $name ($test)"
    missed=$((missed + 1))
  elif grep -q "^--- FAIL: $test" "$work/out"; then
    echo "caught  $name ($test)"
  else
    echo "BROKEN  $name ($test)" && tail -5 "$work/out"
    missed=$((missed + 1))
  fi
  patch --quiet --reverse --strip=1 --directory="$work/tree" <"$patch" || exit 1
done
echo "faults: ${#patches[@]} seeded, $missed missed"
exit $((missed > 0))
