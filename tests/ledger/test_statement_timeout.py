"""The database cancels slow statements of requests, but not those of management commands."""

import subprocess
import sys
from typing import Any

import pytest
from django import db
from django.conf import LazySettings

from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.support.client import Api, InProcess
from tests.support.keys import new_operator
from tests.support.people import MODEL_BACKEND, new_account

pytestmark = pytest.mark.usefixtures("quick_hashing")


def test_requests_and_batches_have_statement_timeouts(settings: LazySettings) -> None:
    shown = {}
    for using in ("default", "reader", "ledger"):
        db.connections[using].close()  # another test may have terminated its backend
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
def slow_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lists take a minute in the database, with a statement timeout of 50 ms."""

    def run_slow_query(*_: Any) -> None:
        with db.transaction.atomic(), db.connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 50")
            cursor.execute("SELECT pg_sleep(60)")

    monkeypatch.setattr("wallets.api.wallets.Page.of", run_slow_query)
    monkeypatch.setattr("wallets.pages.wallet._history", run_slow_query)
    monkeypatch.setattr("wallets.admin.site.start.context", run_slow_query)


@pytest.mark.usefixtures("slow_lists")
def test_cancelled_statement_is_a_query_timeout_problem(api: Api) -> None:
    answer = api.get("/wallets")
    assert (answer.status, answer.code) == (503, "query_timeout")
    assert answer.headers["retry-after"] == "10"


@pytest.mark.usefixtures("slow_lists")
def test_cancelled_statement_is_an_html_error_page() -> None:
    person, operator = InProcess(), InProcess()
    person.client.force_login(new_account("1").user, backend=MODEL_BACKEND)
    operator.client.force_login(new_operator(is_superuser=True), backend=MODEL_BACKEND)
    for sender, path in ((person, "/"), (operator, "/admin/")):
        answer = sender.send("GET", path)
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
