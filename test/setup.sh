#!/usr/bin/env bash
# Installs the Debian packages whose programs the lab, the tests and the demo call.
# Says what is missing and how to get it where it cannot install. Arguments are
# further programs, as program:package.
set -euo pipefail

# program:package
needed=(
  nft:nftables ip:iproute2 curl:curl nc:netcat-openbsd haproxy:haproxy h2load:nghttp2-client
  pip3:python3-pip "$@"
)
missing=()
for entry in "${needed[@]}"; do
  command -v "${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: install these packages first: ${missing[*]}" >&2
  exit 2
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "setup: installing ${missing[*]} failed; the lines above say why" >&2
  exit 1
fi
rm -f "$log"
