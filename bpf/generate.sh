#!/usr/bin/env bash
# Compiles the kernel programs and their Go. The compiler and headers are those of
# Debian 12, so the result is the same on every machine.
set -euo pipefail
cd "$(dirname "$0")"
want="14.0.6"
if ! command -v clang-14 >/dev/null 2>&1 || [ ! -f /usr/include/bpf/bpf_helpers.h ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "generate: needs Debian's clang-14, llvm-14 and libbpf-dev" >&2
    exit 2
  fi
  apt-get update -qq && apt-get install -y -qq --no-install-recommends clang-14 llvm-14 libbpf-dev linux-libc-dev >/dev/null
fi
have=$(clang-14 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')
if [ "$have" != "$want" ]; then
  echo "generate: clang-14 is $have, want $want (Debian 12)" >&2
  exit 1
fi
cd ../pkg/redirect/bpfobj
export GOPACKAGE=bpfobj
gen() { # name, source, types...
  local name=$1 source=$2 types=()
  shift 2
  for t in "$@"; do types+=(-type "$t"); done
  one "$name" "$source" "${name,,}" '!nextlayout' "" "${types[@]}"
  # For tests: a version with another layout of what may change.
  one "$name" "$source" "${name,,}next" nextlayout -DFAIRLEAD_NEXT_LAYOUT "${types[@]}"
}
one() { # name, source, stem, tag, define, types...
  local name=$1 source=$2 stem=$3 tag=$4 define=$5
  shift 5
  go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpfobj -output-stem "$stem" -tags "$tag" \
    "$@" "$name" "../../../bpf/$source" -- -O2 -g -Wall -Werror -mcpu=v3 $define \
    -fdebug-prefix-map="$(cd ../../.. && pwd)=." -I../../../bpf -I"/usr/include/$(gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)" >/dev/null
}
gen Connect connect.bpf.c addr flow pod veth pod_counters under_way roster_entry origin agent_tag probe_tag announced verdict
gen Sockops sockops.bpf.c announced
gen Sklookup sklookup.bpf.c listener_key
gen Guard guard.bpf.c
gen Socket socket.bpf.c
