#!/bin/sh
# Installs Chromium from Debian's packages, for the tests that open pages; without the rights for it, says so and goes on.
set -eu
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Chromium is missing, so the tests that open pages in it are skipped. Install it (Debian: apt-get install chromium)." >&2
    exit 0
fi
echo "Installing Chromium, for the tests that open pages in it." >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null ||
    echo "Chromium could not be installed; the tests that open pages in it will say so." >&2
