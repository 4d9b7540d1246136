"""A cluster with an up-to-date, empty database, built once and copied for every test session."""

import shutil
from pathlib import Path

from local import ROOT, STATE, liquibase
from local.files import digest, locked, plain_errors
from local.postgres import OWNER, Cluster
from local.processes import run

# Without fsync: tests kill processes, never the machine, so data in the kernel's cache survives.
FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}

PREFIX = "test-template-"


@plain_errors()
def copy(to: Path, root: Path = STATE) -> Cluster:
    """Copy the cluster to `to`, which must not exist yet."""
    with locked(root / "test-template.lock"):
        source = _current(root)
        run(["cp", "-a", "--reflink=auto", str(source), str(to)])
    return Cluster(to, FAST_SETTINGS)


@plain_errors()
def template(root: Path = STATE) -> Path:
    with locked(root / "test-template.lock"):
        return _current(root)


def _current(root: Path) -> Path:
    sources = digest(liquibase.FOLDER, ROOT / "local", ROOT / "requirements-local.txt")
    folder = root / f"{PREFIX}{sources[:16]}"
    if not folder.exists():
        _build(folder)
        for outdated in root.glob(f"{PREFIX}*/"):
            if outdated != folder:
                shutil.rmtree(outdated)
    return folder


def _build(folder: Path) -> None:
    print("Building the template of the test database", flush=True)
    new = Cluster(folder.with_name("test-template.new"), FAST_SETTINGS)
    new.remove()
    new.create()
    with new:
        new.prepare_roles()
        liquibase.update(new.url(OWNER))
    new.folder.rename(folder)
