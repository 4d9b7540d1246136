#!/bin/sh
# Installs what `make run` needs, or with the argument "dev" what all other commands need. make calls it when the
# requirements change. It reports what the system lacks before Python reads code in a newer syntax.
set -eu

fail() {
    echo "walletsvc: $1" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is missing: install Python 3.11 or later"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or later is needed; python3 is $(python3 --version 2>&1)"
python3 -c 'import ensurepip, venv' 2>/dev/null ||
    fail "this Python cannot make virtual environments: install its venv module (package python3-venv)"
command -v setpriv >/dev/null || fail "the program setpriv is missing: install the package util-linux"
exec python3 -m local.install "$1"
