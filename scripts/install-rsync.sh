#!/bin/sh
# Installs rsync, which the benchmarks compare the file sync with, from the distribution's packages.
# Without the rights for it, or without apt-get, nothing happens, and those rows of the table say that it is missing.
set -u
if command -v rsync >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    exit 0
fi
run=""
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || exit 0
    run="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
$run apt-get -qq update && $run apt-get -qq install -y --no-install-recommends rsync >/dev/null
exit 0
