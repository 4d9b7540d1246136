"""Installs the packages of `make run`, or with the argument `dev` those of every make command.

Standard library only: the system's Python runs this before any package is installed.
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
        # Locked: two make commands may start at once, such as `make run` and `make test`.
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
        with step("Liquibase, downloaded at the same time"):
            liquibase.result()
    for installed in {"run", purpose}:
        stamp(installed).touch()


def fetch_liquibase() -> None:
    """Run the virtual environment's Python: its pip can install npm. The system's Python may have no pip."""
    if not (os.environ.get("LIQUIBASE") or shutil.which("liquibase")):
        run_with_output([PYTHON, "-m", "local.jars"])


def create_environment() -> None:
    if (VENV / "bin" / "pip").exists() and has_module("pip"):
        return
    with step("Virtual environment .venv"):
        run_with_output([sys.executable, "-m", "venv", "--clear", str(VENV)])


def has_module(name: str) -> bool:
    try:
        run([PYTHON, "-c", f"import {name}"])
    except LocalError:
        return False
    return True


def install_packages(file: str) -> None:
    """Use uv, which takes seconds; use pip if uv has no wheel or does not know pip's configured index."""
    try:
        run([*PIP, "--only-binary", ":all:", "--requirement", "requirements-uv.txt"], cwd=ROOT)
        run([*UV, "--requirement", file], cwd=ROOT)
    except LocalError:
        run_with_output([*PIP, "--requirement", file])


def run_with_output(command: Sequence[str]) -> None:
    """Run a command. Raises LocalError with its whole output if it fails."""
    run(command, cwd=ROOT, explain=lambda output: f"{' '.join(command)} failed:\n{output}")


if __name__ == "__main__":
    main(sys.argv[1])
