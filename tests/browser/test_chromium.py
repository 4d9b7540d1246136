"""The Chromium of the browser tests is found under its usual names, or by $CHROMIUM."""

from pathlib import Path

import pytest

from tests.support.browser import chromium


@pytest.mark.parametrize("name", chromium.NAMES)
def test_chromium_is_found_under_all_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (program := tmp_path / name).touch(mode=0o755)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.find() == str(program)


def test_chromium_variable_has_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (chosen := tmp_path / "mine").touch(mode=0o755)
    (tmp_path / "chromium").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", str(chosen))
    assert chromium.find() == str(chosen)
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert chromium.find() is None
