"""The database ends the statements of requests that take too long, and not those of commands."""

import subprocess
import sys
from typing import Any

import pytest
from django import db
from django.conf import LazySettings

from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.support.client import Api, InProcess
from tests.support.keys import new_operator
from tests.support.people import MODEL_BACKEND, somebody

pytestmark = pytest.mark.usefixtures("quick_hashing")


def test_database_ends_statements_of_requests_and_bounds_batches(settings: LazySettings) -> None:
    shown = {}
    for using in ("default", "reader", "ledger"):
        db.connections[using].close()  # another test may have ended its backend
        with db.connections[using].cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            shown[using] = cursor.fetchone()[0]
    assert settings.STATEMENT_TIMEOUT == 5
    assert shown == {"default": "5s", "reader": "5s", "ledger": "20s"}


def test_commands_have_no_statement_timeout() -> None:
    code = (
        "from django.db import connections\n"
        "for using in connections:\n"
        "    cursor = connections[using].cursor()\n"
        "    print(cursor.execute('SHOW statement_timeout').fetchone()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["0", "0", "0"], 0), done.stderr


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that the database would take a minute for, and a timeout of a fraction of a second."""

    def ask(*_: Any) -> None:
        with db.transaction.atomic(), db.connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 50")
            cursor.execute("SELECT pg_sleep(60)")

    monkeypatch.setattr("wallets.api.wallets.Page.of", ask)
    monkeypatch.setattr("wallets.pages.wallet._history", ask)
    monkeypatch.setattr("wallets.admin.site.start.context", ask)


@pytest.mark.usefixtures("slow")
def test_statement_that_is_ended_is_a_problem_of_its_own(api: Api) -> None:
    answer = api.get("/wallets")
    assert (answer.status, answer.code) == (503, "query_timeout")
    assert answer.headers["retry-after"] == "10"


@pytest.mark.usefixtures("slow")
def test_statement_that_is_ended_is_a_page_for_people() -> None:
    person, operator = InProcess(), InProcess()
    person.client.force_login(somebody("1").user, backend=MODEL_BACKEND)
    operator.client.force_login(new_operator(is_superuser=True), backend=MODEL_BACKEND)
    for sender, path in ((person, "/"), (operator, "/admin/")):
        answer = sender.send("GET", path)
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
