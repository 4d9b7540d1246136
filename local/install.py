"""Installs what `make run` needs, or with the argument `dev` what every other command needs too.

Standard library only: the system's Python runs this before any package is there.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local import ROOT, STATE, LocalError
from local.files import locked, plain_errors
from local.processes import run
from local.steps import step

VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
REQUIREMENTS = {"run": "requirements-local.txt", "dev": "requirements-dev.txt"}
PIP = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes")
UV = (PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON, "--require-hashes")


def main(purpose: str) -> None:
    try:
        # Two makes may start at once, such as `make run` and `make test`.
        with plain_errors(), locked(STATE / "install.lock"):
            if not is_installed(purpose):
                install(purpose)
    except LocalError as error:
        sys.exit(f"walletsvc: {error}")


def is_installed(purpose: str) -> bool:
    newest = max((ROOT / name).stat().st_mtime for name in REQUIREMENTS.values())
    return stamp(purpose).exists() and stamp(purpose).stat().st_mtime >= newest


def stamp(purpose: str) -> Path:
    return VENV / f"ready-{purpose}"


def install(purpose: str) -> None:
    create_environment()
    with ThreadPoolExecutor() as pool:
        liquibase = pool.submit(fetch_liquibase)
        with step(f"Packages of {REQUIREMENTS[purpose]}"):
            install_packages(REQUIREMENTS[purpose])
        with step("Liquibase, fetched beside the packages"):
            liquibase.result()
    for done in {"run", purpose}:
        stamp(done).touch()


def fetch_liquibase() -> None:
    """By the environment's Python: its pip fetches npm if there is none. The system's may have no pip."""
    if not (os.environ.get("LIQUIBASE") or shutil.which("liquibase")):
        attempt([PYTHON, "-m", "local.jars"])


def create_environment() -> None:
    if (VENV / "bin" / "pip").exists() and has_module("pip"):
        return
    with step("Virtual environment .venv"):
        attempt([sys.executable, "-m", "venv", "--clear", str(VENV)])


def has_module(name: str) -> bool:
    try:
        run([PYTHON, "-c", f"import {name}"])
    except LocalError:
        return False
    return True


def install_packages(file: str) -> None:
    """By uv, in seconds; by pip if uv has no wheel, or does not know the index that pip is configured for."""
    try:
        run([*PIP, "--only-binary", ":all:", "--requirement", "requirements-uv.txt"], cwd=ROOT)
        run([*UV, "--requirement", file], cwd=ROOT)
    except LocalError:
        attempt([*PIP, "--requirement", file])


def attempt(command: Sequence[str]) -> None:
    """Run a command; if it fails, show all that it printed."""
    run(command, cwd=ROOT, explain=lambda output: f"{' '.join(command)} failed:\n{output}")


if __name__ == "__main__":
    main(sys.argv[1])
