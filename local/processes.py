"""Child processes that end with their parent, and their errors in one line."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local import LocalError

FULL_DISK = re.compile(r"no space left|disk space", re.IGNORECASE)
COMPLAINT = re.compile(r"\b(error|fatal|panic|denied)\b", re.IGNORECASE)


def bound(command: Sequence[str], dying_wish: str = "KILL", owner: Path | None = None) -> list[str]:
    """Wrap the command to get the signal `dying_wish` when its parent thread ends, even by kill -9.

    With `owner`, root steps down to the owner of that path.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError("the program setpriv is missing (package util-linux)")
    identity = _identity(setpriv, command[0], owner) if owner and os.geteuid() == 0 else []
    return [setpriv, "--pdeathsig", dying_wish, *identity, *command]


def _identity(setpriv: str, program: str, owner: Path) -> list[str]:
    status = owner.stat()
    user = ["--reuid", str(status.st_uid), "--regid", str(status.st_gid), "--clear-groups"]
    reach = [setpriv, *user, "test", "-x", program, "-a", "-x", str(owner)]
    if subprocess.run(reach, check=False).returncode == 0:  # noqa: S603
        return user
    # The repository lies where only root may look, such as /root: access to files has to stay root's.
    # Without no_setuid_fixup, access(2), which PostgreSQL asks about its programs, would ignore that.
    files = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
    return [*user, *files, "--securebits", "+no_setuid_fixup"]


def complaint(output: str) -> str:
    """Return the error line of a program's output, or all of it if the error is a bug."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if full := [line for line in lines if FULL_DISK.search(line)]:
        return full[0]
    if "Traceback (most recent call last):" in lines:
        return output
    telling = [line for line in lines if COMPLAINT.search(line)]
    return [*telling, *lines[-1:], "it says nothing"][0]


def run(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    owner: Path | None = None,
    explain: Callable[[str], str] | None = None,
) -> str:
    """Return the output of a command. Raises LocalError if it fails."""
    done = subprocess.run(  # noqa: S603
        bound(command, owner=owner),
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
        raise LocalError(explain(output) if explain else f"{program} failed: {complaint(output)}")
    return done.stdout


def stop(
    process: subprocess.Popen[bytes], gently: signal.Signals, firmly: signal.Signals, patience: float
) -> None:
    process.send_signal(gently)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.send_signal(firmly)
        process.wait()
