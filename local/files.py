"""Files under .local: locks, secrets, digests."""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local import LocalError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a LocalError, because the user can solve it."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise LocalError(f"{error.strerror or error}{where}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def secret(path: Path) -> str:
    """Return the secret in this file; create it at the first use."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, secrets.token_urlsafe(48))
    return path.read_text()


def write(path: Path, text: str) -> None:
    """Replace the file atomically: a process that is killed half-way leaves the old file."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    os.replace(new, path)


def digest(*paths: Path) -> str:
    """Return one hash of the names and contents of the files, and of all files in the folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(_files(path)):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{file.relative_to(path.parent)} {content}\n".encode())
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
