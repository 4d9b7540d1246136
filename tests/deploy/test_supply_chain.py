"""Third-party packages: pinned with hashes, scanned, and listed in the image."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files, requires, version
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local import ROOT, install

FILES = tuple(path.stem for path in ROOT.glob("requirements*.in"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


class Pin(NamedTuple):
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def is_for_this_machine(self) -> bool:
        return not self.requirement.marker or self.requirement.marker.evaluate()


@cache
def pins(file: str) -> tuple[Pin, ...]:
    """Return the pinned packages, as `make requirements` wrote them."""
    text = (ROOT / f"{file}.txt").read_text().replace("\\\n", "")
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    parts = (re.split(r"\s+--hash=sha256:", line) for line in lines)
    return tuple(Pin(Requirement(first), tuple(hashes)) for first, *hashes in parts)


def required_by(file: str) -> list[Requirement]:
    """Return the direct requirements of the file and of the files that it includes."""
    lines = (ROOT / f"{file}.in").read_text().splitlines()
    further = [line.removeprefix("-r ").removesuffix(".txt") for line in lines if line.startswith("-r ")]
    own = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return own + [requirement for name in further for requirement in required_by(name)]


def installed() -> dict[str, str]:
    """Return the installed version of each package that the service needs here."""
    return {pin.name: version(pin.name) for pin in pins("requirements") if pin.is_for_this_machine}


RequiredPackage = tuple[str, frozenset[str]]  # a distribution and its extras


def dependencies_of(requirement: Requirement, seen: set[RequiredPackage]) -> Iterator[str]:
    """Yield the distributions that pip installs for the requirement, including its own."""
    if (wanted := (canonicalize_name(requirement.name), frozenset(requirement.extras))) in seen:
        return
    seen.add(wanted)
    yield canonicalize_name(requirement.name)
    for line in requires(requirement.name) or ():
        further = Requirement(line)
        extras = requirement.extras or {""}
        if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in extras):
            yield from dependencies_of(further, seen)


# --- Pins -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", FILES)
def test_every_package_is_pinned_to_one_version_and_its_hashes(file: str) -> None:
    names = [pin.name for pin in pins(file)]
    assert len(names) == len(set(names)) > len(required_by(file)) / 2
    for pin in pins(file):
        assert re.fullmatch(r"==[^*,]+", str(pin.requirement.specifier)), pin
        assert pin.requirement.url is None
        assert pin.hashes, pin
        assert [each for each in pin.hashes if not re.fullmatch("[0-9a-f]{64}", each)] == []


def test_the_image_has_no_profiler() -> None:
    assert "py-spy" in {pin.name for pin in pins("requirements-profiler")}
    assert "py-spy" not in installed()


@pytest.mark.parametrize("file", FILES)
def test_pins_match_the_requirements(file: str) -> None:
    """If this fails, run `make requirements`."""
    required = {canonicalize_name(each.name): str(each.specifier) for each in required_by(file)}
    pinned = {pin.name: str(pin.requirement.specifier) for pin in pins(file)}
    assert required.items() <= pinned.items()


@pytest.mark.parametrize("file", FILES)
def test_pinned_packages_are_needed_and_installed(file: str) -> None:
    here = {pin.name: str(pin.requirement.specifier) for pin in pins(file) if pin.is_for_this_machine}
    seen: set[RequiredPackage] = set()
    assert {name for each in required_by(file) for name in dependencies_of(each, seen)} == set(here)
    # With hashes, pip 23 treats a distribution with an extra as another, unpinned one.
    extras = {pin.name: pin.requirement.extras for pin in pins(file)}
    assert [name for name, wanted in seen if not wanted <= extras[name]] == []
    assert {name: f"=={version(name)}" for name in here} == here


def test_tests_and_image_have_the_same_versions() -> None:
    of_tests = {pin.name: pin for pin in pins("requirements-dev")}
    for pin in (pin for file in FILES for pin in pins(file)):
        assert of_tests[pin.name].requirement.specifier == pin.requirement.specifier
        assert set(of_tests[pin.name].hashes) == set(pin.hashes)


@pytest.mark.parametrize("file", FILES)
def test_requirements_name_no_package_index(file: str) -> None:
    """The machine's own pip configuration may name a mirror; the files must not."""
    for path in (ROOT / f"{file}.in", ROOT / f"{file}.txt"):
        assert re.findall(r"://|index-url|find-links|trusted-host", path.read_text()) == []


@pytest.mark.parametrize("path", ["Dockerfile", "Makefile"])
def test_every_installation_requires_hashes(path: str) -> None:
    lines = (ROOT / path).read_text().replace("\\\n", "").splitlines()
    commands = [line for line in lines if re.search(r"-m pip .*\binstall ", line)]
    assert commands
    assert [command for command in commands if "--require-hashes" not in command] == []


@pytest.mark.parametrize("command", [install.PIP, install.UV], ids=["pip", "uv"])
def test_local_installation_requires_hashes(command: tuple[str, ...]) -> None:
    assert "--require-hashes" in command


# --- Scans ------------------------------------------------------------------------------------------
def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a module with this Python."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


SCAN = ("detect_secrets.pre_commit_hook", "--no-verify", "--baseline", ".secrets.baseline")
# Concatenated: otherwise the scan would find them in this file.
PLANTED = (
    "AKIA" + "IOSFODNN7EXAMPLA",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "password = '" + "Tr0ub4dor-and-3" + "'",
    "postgres://walletsvc_app:" + "Tr0ub4dor-and-3" + "@db/walletsvc",
)


@pytest.mark.parametrize("secret", PLANTED, ids=("key id", "private key", "password", "address"))
@pytest.mark.slow
def test_planted_secret_is_found(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "settings_of_production.py"
    file.write_text(f'"""{secret}"""\n' if "'" not in secret else f"{secret}\n")
    done = run(*SCAN, file)
    assert (done.returncode, str(file) in done.stdout) == (1, True), done.stdout


def test_excluded_string_is_not_reported(tmp_path: Path) -> None:
    file = tmp_path / "settings_of_tests.py"
    file.write_text("password = 'hunter2-in-a-test'\n")
    assert run(*SCAN, file).returncode == 0


def test_baseline_excludes_no_file_or_line() -> None:
    written = json.loads((ROOT / ".secrets.baseline").read_text())
    assert written["results"] == {}
    filters = {each["path"].rpartition(".")[2] for each in written["filters_used"]}
    assert {"should_exclude_file", "should_exclude_line"} & filters == set()
    assert len(written["plugins_used"]) >= 27


@pytest.mark.parametrize(
    "line", ["subprocess.call(sys.argv[1], shell=True)", "hashlib.md5(b'')", "pickle.loads(b'')"]
)
def test_insecure_call_is_found(tmp_path: Path, line: str) -> None:
    file = tmp_path / "weak.py"
    file.write_text(f"import hashlib, pickle, subprocess, sys\n{line}\n")
    assert run("bandit", "--quiet", "--configfile", "pyproject.toml", file).returncode == 1


def test_ruff_covers_the_skipped_bandit_rules() -> None:
    implied = {"B404", "B703"}
    ruff = PROJECT["tool"]["ruff"]["lint"]
    assert "S" in ruff["select"]
    for name in set(PROJECT["tool"]["bandit"]["skips"]) - implied:
        rule = name.replace("B", "S")
        assert rule not in ruff["ignore"]
        assert run("ruff", "rule", rule).returncode == 0


# --- Package --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an environment with the metadata of each package of the image."""
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in installed():
        for file in files(name) or ():
            if file.parent.name.endswith(".dist-info"):
                (packages / file.parent).mkdir(exist_ok=True)
                shutil.copy(str(file.locate()), packages / file)
    return folder


# One test below validates the document: the validation is slow.
MAKE = ("cyclonedx_py", "environment", "--pyproject=pyproject.toml", "--output-reproducible", "--no-validate")


@pytest.fixture(scope="module")
def document(image: Path) -> str:
    done = run(*MAKE, image / "bin/python")
    assert done.returncode == 0, done.stderr
    return done.stdout


def errors_in(document: str) -> object:
    # They import jsonschema, which takes 3 s of CPU; every process of pytest-xdist imports this module.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)


@pytest.mark.slow
def test_package_list_is_valid_cyclonedx(document: str) -> None:
    assert errors_in(document) is None
    assert errors_in('{"bomFormat": "CycloneDX"}') is not None


@pytest.mark.slow
def test_package_list_has_versions_and_dependencies(document: str) -> None:
    listed = json.loads(document)
    assert listed["metadata"]["component"]["name"] == "walletsvc"
    versions = {canonicalize_name(each["name"]): each["version"] for each in listed["components"]}
    assert versions == installed()
    needed = {each["ref"].partition("==")[0]: each for each in listed["dependencies"]}
    assert any(need.startswith("asgiref==") for need in needed["Django"]["dependsOn"])


def test_package_list_is_reproducible(document: str, image: Path) -> None:
    assert run(*MAKE, image / "bin/python").stdout == document


def test_image_contains_the_package_list() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    assert " ".join(MAKE) in lines
    assert "COPY --from=sbom /sbom.json " in lines
