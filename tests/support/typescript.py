"""The TypeScript compiler of the npm package, on the machine's Node.js."""

import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from local import STATE
from local.files import locked
from local.jars import pack, verify

PACKAGE: Final = "typescript@6.0.3"
INTEGRITY: Final = (
    "sha512-y2TvuxSZPDyQakkFRPZHKFm+KKVqIisdg9/CZwm9ftvKXLP8NRWj38/ODjNbr43SsoXqNuAisEf1GdCxqWcdBw=="
)
FOLDER: Final = STATE / PACKAGE


def compiler() -> tuple[str, ...]:
    """Return the command that runs the compiler. Fetches it at the first use."""
    with locked(STATE / "typescript.lock"):
        if not FOLDER.exists():
            _fetch()
    return ("node", str(FOLDER / "lib" / "tsc.js"))


def _fetch() -> None:
    with TemporaryDirectory(dir=STATE) as folder:
        package = pack(Path(folder), PACKAGE)
        verify(package, INTEGRITY)
        with tarfile.open(package) as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / "package").rename(FOLDER)
