"""Child processes: they die with their parent, and their complaints become one line."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local import LocalError

COMPLAINT = re.compile(r"\b(error|fatal|panic|denied)\b", re.IGNORECASE)


def unprivileged() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root; this is who it runs as instead."""
    return pwd.getpwnam("nobody")


def bound(command: Sequence[str], dying_wish: str = "TERM", owner: Path | None = None) -> list[str]:
    """The command, to get the signal `dying_wish` when its parent thread ends, even by kill -9.

    With `owner`, root steps down to the owner of that path.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError("the program setpriv is missing (package util-linux)")
    return [setpriv, "--pdeathsig", dying_wish, *(_step_down(owner) if owner else []), *command]


def _step_down(owner: Path) -> list[str]:
    status = owner.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return []
    return [
        *("--reuid", str(status.st_uid), "--regid", str(status.st_gid), "--clear-groups"),
        # The repository may lie where only root can look, such as /root: access to files stays root's.
        # Without no_setuid_fixup, access(2), which PostgreSQL asks about its programs, would ignore that.
        *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
        *("--securebits", "+no_setuid_fixup"),
    ]


def complaint(output: str) -> str:
    """The line of a program's output that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next(filter(COMPLAINT.search, lines), lines[-1] if lines else "it says nothing")


def run(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    owner: Path | None = None,
    explain: Callable[[str], str] = complaint,
) -> str:
    """The output of a command that has to succeed."""
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
        name = Path(command[0]).name
        raise LocalError(f"{name} failed ({done.returncode}): {explain(done.stderr + done.stdout)}")
    return done.stdout
