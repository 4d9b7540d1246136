"""The template of the test database is built once, however many ask for it."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from local import ROOT, template
from local.postgres import OWNER

pytestmark = pytest.mark.slow

ASK = "import sys, pathlib; from local import template; print(template.template(pathlib.Path(sys.argv[1])))"


def test_two_who_ask_at_once_get_the_same_and_what_is_outdated_goes(tmp_path: Path) -> None:
    (tmp_path / "test-template-of-yesterday").mkdir()
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [asker.communicate()[0].splitlines() for asker in askers]
    assert answers[0][-1] == answers[1][-1]
    assert sorted(map(len, answers)) == [1, 2]  # one of them says that it builds
    assert [str(path) for path in tmp_path.glob("test-template-*/")] == [answers[0][-1]]


def test_copies_run_beside_each_other_and_share_nothing(tmp_path: Path) -> None:
    with template.copy(tmp_path / "one") as one, template.copy(tmp_path / "two") as two:
        with psycopg.connect(one.url(OWNER)) as connection:
            connection.execute("CREATE TABLE only_here (id int)")
        with psycopg.connect(two.url(OWNER)) as connection:
            assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
