#!/bin/sh
# Installs Google's own command-line client for Colab into an environment of its own, for the tests that run it
# against the emulator. It needs Python 3.12 or newer. Where that or the package cannot be had, the reason is written
# down beside it, and the tests are skipped with that reason; this script itself then still succeeds.
set -u
version=0.7.5
tools=${1:-.venv}/tools
target=$tools/google-colab-cli
if [ "$(cat "$target/version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
mkdir -p "$tools"
rm -rf "$target" "$target.why"

give_up() {
    echo "google-colab-cli is not installed, its tests will be skipped: $1" >&2
    echo "$1" >"$target.why"
    rm -rf "$target"
    exit 0
}

usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null
}

python=""
pyenv=${PYENV_ROOT:-$HOME/.pyenv}
for candidate in python3.12 python3.13 python3.14 python3 "$pyenv"/versions/3.1[2-9]*/bin/python; do
    if command -v "$candidate" >/dev/null 2>&1 && usable "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || give_up "there is no Python 3.12 or newer with its venv module"

echo "installing google-colab-cli $version for its tests ..."
"$python" -m venv "$target" || give_up "$python could not make an environment"
log=$target/install.log
"$target/bin/python" -m pip --disable-pip-version-check install "google-colab-cli==$version" >"$log" 2>&1 ||
    give_up "pip could not install it: $(tail -n 1 "$log")"
echo "$version" >"$target/version"
