#!/bin/sh
# Writes constraints.txt: the versions that a resolver picks today for everything that the Makefile installs.
# Names and versions only, so that the file says nothing about where packages come from.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=$(sh scripts/find-python.sh)
"$python" -m venv "$folder/venv"
pip="$folder/venv/bin/python -m pip --disable-pip-version-check -q"
$pip install --upgrade 'pip>=25.1'
$pip install -e '.[examples]' --group test --group ecosystem --group lint --group docs
{
    echo "# Versions that are known to work together; made by scripts/update-constraints.sh, do not edit."
    $pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | sort -f
} >"$folder/constraints.txt"
mv "$folder/constraints.txt" constraints.txt
chmod 644 constraints.txt
