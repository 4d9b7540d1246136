#!/bin/sh
# Makes .venv and installs what requirements-dev.txt names. For make, which calls it when those files change.
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

# Two makes may come here at once, such as a first `make run` with a first `make test` beside it.
exec 9<requirements.txt
flock 9
if [ .venv/ready -nt requirements.txt ] && [ .venv/ready -nt requirements-dev.txt ]; then
    exit 0
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Creating the virtual environment .venv"
    python3 -m venv --clear .venv || fail "the virtual environment cannot be made; the reason is above"
fi
echo "Installing the packages of requirements-dev.txt"
.venv/bin/python -m pip install --disable-pip-version-check --require-hashes --requirement requirements-dev.txt ||
    fail "the packages cannot be installed; the reason is above"
touch .venv/ready
