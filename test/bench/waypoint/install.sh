#!/usr/bin/env bash
# Puts the proxies that the waypoint is measured beside where the benchmark looks for them. Does nothing where they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

caddy=v2.11.0
missing=()
for entry in wrk:wrk nginx:nginx-light h2load:nghttp2-client haproxy:haproxy taskset:util-linux; do
  command -v "${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "bench: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
test/envoy/install.sh
mkdir -p .cache/caddy .cache/bench
[ -x .cache/caddy/caddy ] || GOBIN="$PWD/.cache/caddy" go install "github.com/caddyserver/caddy/v2/cmd/caddy@$caddy"
[ -x .cache/bench/fasthttp ] || (cd test/bench/waypoint/fasthttp && go build -o ../../../../.cache/bench/fasthttp .)
