"""The version of pyproject.toml is the one that the service and its deployment state."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local import ROOT
from tests.support.client import Api
from walletsvc.version import VERSION


def test_probe_and_openapi_name_the_version(api: Api) -> None:
    assert api.sender.send("GET", "/livez").json == {"status": "ok", "version": VERSION}
    schema = api.sender.send("GET", "/api/schema", headers={"Accept": "application/json"})
    assert schema.json["info"]["version"] == VERSION


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_command_prints_the_version(argument: str) -> None:
    printed = subprocess.run(
        [sys.executable, "manage.py", argument], cwd=ROOT, capture_output=True, check=True
    )
    assert printed.stdout == f"{VERSION}\n".encode()


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("Dockerfile", r"org\.opencontainers\.image\.version=(\S+)"),
        ("deploy/kubernetes/base/kustomization.yaml", r"app\.kubernetes\.io/version: ([^}\s]+)"),
        ("deploy/kubernetes/overlays/example/kustomization.yaml", r"newTag: (\S+)"),
    ],
)
def test_deployment_names_the_version(file: str, pattern: str) -> None:
    assert re.findall(pattern, (ROOT / file).read_text()) == [VERSION]


def test_changelog_has_a_dated_section_for_the_version() -> None:
    sections = re.findall(
        r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert sections[0][0] == VERSION
    assert sections == sorted(
        sections, key=lambda section: [int(part) for part in section[0].split(".")], reverse=True
    )


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda file: file.name)
def test_forge_files_are_yaml(file: Path) -> None:
    assert yaml.safe_load(file.read_text())
