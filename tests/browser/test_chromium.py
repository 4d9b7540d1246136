"""Where no Chromium is found: left out with a word about it, and on CI an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.browser import chromium


def choose(**environment: str) -> "subprocess.CompletedProcess[str]":
    """As make does, with nothing else in the environment."""
    command = [sys.executable, "-m", "tests.support.browser.chromium"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_without_a_chromium_its_tests_are_left_out_in_one_line(tmp_path: Path) -> None:
    chosen = choose(PATH=str(tmp_path))
    assert (chosen.returncode, chosen.stdout) == (0, "--ignore=tests/browser\n")
    assert chosen.stderr == f"The browser tests are left out: {chromium.MISSING}\n"


def test_on_ci_a_missing_chromium_is_an_error(tmp_path: Path) -> None:
    chosen = choose(PATH=str(tmp_path), CI="true")
    assert (chosen.returncode, chosen.stdout) == (1, "")
    assert chromium.MISSING in chosen.stderr


@pytest.mark.parametrize("name", chromium.NAMES)
def test_a_chromium_on_the_path_is_found_under_any_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (program := tmp_path / name).touch(mode=0o755)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.find() == str(program)


def test_the_chromium_that_is_named_goes_before_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chosen := tmp_path / "mine").touch(mode=0o755)
    (tmp_path / "chromium").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", str(chosen))
    assert chromium.find() == str(chosen)
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert chromium.find() is None
