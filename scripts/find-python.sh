#!/bin/sh
# Prints the first Python on the PATH that is new enough; says what to install when there is none.
for name in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null 2>&1 &&
        "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        command -v "$name"
        exit 0
    fi
done
echo "Colab Bridge needs Python 3.11 or newer with its venv module; install it and run make again." >&2
exit 1
