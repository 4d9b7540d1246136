"""Child processes that end with their parent, and one-line errors from their output."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local import LocalError

FULL_DISK = re.compile(r"no space left|disk space", re.IGNORECASE)
ERROR = re.compile(r"\b(error|fatal|panic|denied)\b", re.IGNORECASE)


def ending_with_parent(
    command: Sequence[str], death_signal: str = "KILL", owner: Path | None = None
) -> list[str]:
    """Return the command, wrapped to get `death_signal` when its parent thread ends, even by kill -9.

    With `owner`, root runs the command as the owner of that path.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError("the program setpriv is missing (package util-linux)")
    identity = _identity(setpriv, command[0], owner) if owner and os.geteuid() == 0 else []
    return [setpriv, "--pdeathsig", death_signal, *identity, *command]


def _identity(setpriv: str, program: str, owner: Path) -> list[str]:
    status = owner.stat()
    user = ["--reuid", str(status.st_uid), "--regid", str(status.st_gid), "--clear-groups"]
    access_test = [setpriv, *user, "test", "-x", program, "-a", "-x", str(owner)]
    if subprocess.run(access_test, check=False).returncode == 0:  # noqa: S603
        return user
    # Only root can read the repository's folder, such as /root: the process keeps root's access to files.
    # Without no_setuid_fixup, access(2), with which PostgreSQL checks its programs, would ignore that.
    capabilities = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
    return [*user, *capabilities, "--securebits", "+no_setuid_fixup"]


def error_line(output: str) -> str:
    """Return the line of the output that states the error, or the whole output if it has a traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if full := [line for line in lines if FULL_DISK.search(line)]:
        return full[0]
    if "Traceback (most recent call last):" in lines:
        return output
    errors = [line for line in lines if ERROR.search(line)]
    return [*errors, *lines[-1:], "no output"][0]


def run(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    owner: Path | None = None,
    explain: Callable[[str], str] | None = None,
) -> str:
    """Return the standard output of a command. Raises LocalError if it fails, with `explain(output)`."""
    done = subprocess.run(  # noqa: S603
        ending_with_parent(command, owner=owner),
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        output = done.stderr + done.stdout
        program = Path(command[0]).name
        raise LocalError(explain(output) if explain else f"{program} failed: {error_line(output)}")
    return done.stdout


def stop(
    process: subprocess.Popen[bytes], graceful: signal.Signals, forced: signal.Signals, timeout_seconds: float
) -> None:
    """Send `graceful` and wait. If the process does not end in time, send `forced`."""
    process.send_signal(graceful)
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(forced)
        process.wait()
