#!/bin/sh
# Puts promtool and prometheus into .cache/prometheus, from Debian's package.
set -eu
cd "$(dirname "$0")/../.."
target=$PWD/.cache/prometheus
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "promtool and prometheus are missing. Install Prometheus 2.42 or newer, so that both are in PATH." >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
if ! apt-get -qq download prometheus; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "Debian's package prometheus cannot be fetched. Run apt-get update as root, or install prometheus." >&2
        exit 1
    fi
    apt-get -qq update
    apt-get -qq download prometheus
fi
mkdir -p "$target"
dpkg-deb -x prometheus_*.deb "$target"
"$target/usr/bin/promtool" --version >/dev/null
