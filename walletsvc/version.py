"""The version of this release. Its only source is pyproject.toml."""

import tomllib
from pathlib import Path
from typing import Final

_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
VERSION: Final[str] = tomllib.loads(_PROJECT.read_text())["project"]["version"]
