"""Concurrent processes build the template of the test database once, and copies of it are independent."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from local import ROOT, template
from local.postgres import OWNER

pytestmark = pytest.mark.slow

BUILD = "import sys, pathlib; from local import template; print(template.template(pathlib.Path(sys.argv[1])))"


def test_concurrent_builds_share_a_template_and_remove_outdated_ones(tmp_path: Path) -> None:
    (tmp_path / "test-template-outdated").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert outputs[0][-1] == outputs[1][-1]
    assert sorted(map(len, outputs)) == [1, 2]  # one of them prints that it builds
    assert [str(path) for path in tmp_path.glob("test-template-*/")] == [outputs[0][-1]]


def test_copies_are_independent(tmp_path: Path) -> None:
    with template.copy(tmp_path / "one") as one, template.copy(tmp_path / "two") as two:
        with psycopg.connect(one.url(OWNER)) as connection:
            connection.execute("CREATE TABLE only_here (id int)")
        with psycopg.connect(two.url(OWNER)) as connection:
            assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
