"""Error reports, as a server that speaks Sentry's protocol receives them."""

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.postgres import free_port
from tests.conftest import running_service
from tests.support.client import UNKNOWN_ID, Api, OverHttp
from tests.support.cluster import cluster
from tests.support.keys import new_key, new_person
from tests.support.mail import ask_for_link, refusing_mail
from wallets.access.rights import ADMIN

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "hunter2-in-a-report"


@dataclass
class Reports:
    """The received reports."""

    dsn: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        text = gzip.decompress(body).decode()
        self.bodies.append(text)
        lines = text.splitlines()
        for head, payload in zip(lines[1::2], lines[2::2], strict=True):
            if json.loads(head)["type"] == "event":
                self.events.append(json.loads(payload))

    def of_request(self, request_id: str) -> list[dict[str, Any]]:
        return self.wait_for(lambda event: event["tags"].get("request_id") == request_id)

    def wait_for(self, matches: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 30
        while not (found := list(filter(matches, self.events))):
            assert time.monotonic() < deadline, "no such report arrived"
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    reports = Reports()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reports.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        reports.dsn = f"http://public@127.0.0.1:{server.server_port}/1"
        yield reports
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def api(reports: Reports) -> Iterator[Api]:
    given = {"SENTRY_DSN": reports.dsn, "SENTRY_ENVIRONMENT": "tests", "API_ACCESS": "key", "WORKERS": "1"}
    with running_service(**given) as address:
        sender = OverHttp(address)
        with closing(sender.connection):
            yield Api(sender, new_key(ADMIN))


@contextmanager
def revoked(what: str) -> Iterator[None]:
    """Revoke a privilege that the service needs, to cause an error."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute(f"REVOKE {what} FROM walletsvc_app")
        try:
            yield
        finally:
            database.execute(f"GRANT {what} TO walletsvc_app")


def wait_for_all_reports(api: Api, reports: Reports) -> None:
    """Wait for all reports so far, by causing one more.

    A connection stays with one worker, whose reports arrive in order.
    """
    with revoked("SELECT ON hold"):
        last = api.get(f"/holds/{UNKNOWN_ID}?again")
    reports.of_request(last.headers["x-request-id"])


def test_error_is_reported_once_with_its_request_only(api: Api, reports: Reports) -> None:
    api.sender.send("GET", "/login")  # an earlier request, whose data must not appear
    with revoked("SELECT ON hold"):
        answer = api.get(
            f"/holds/{UNKNOWN_ID}?{SECRET}",
            Cookie=f"sessionid={SECRET}",
            traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        )
    assert answer.code == "internal_error"
    wait_for_all_reports(api, reports)
    [event] = reports.of_request(answer.headers["x-request-id"])
    assert event["tags"] == {
        "request_id": answer.headers["x-request-id"],
        "trace_id": TRACE,
        "route": "/api/v1/holds/{hold_id}",
    }
    assert event["environment"] == "tests"
    assert event["level"] == "error"
    error = event["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("ProgrammingError", "permission denied for table hold")
    assert any(frame["module"] == "wallets.api.holds" for frame in error["stacktrace"]["frames"])
    assert all("vars" not in frame for frame in error["stacktrace"]["frames"])
    assert event.keys() <= {
        *("event_id", "timestamp", "level", "logger", "platform", "environment", "server_name", "sdk"),
        *("exception", "logentry", "tags"),
    }


def test_reports_contain_no_request_data(api: Api, reports: Reports) -> None:
    wallet = api.open(label=SECRET)
    with revoked("INSERT ON operation"):
        answer = api.deposit(wallet, "1.23", key=SECRET, description=SECRET, metadata={SECRET: SECRET})
    assert answer.code == "internal_error"
    assert reports.of_request(answer.headers["x-request-id"])
    assert api.key
    for body in reports.bodies:
        assert SECRET not in body
        assert api.key[12:] not in body


def test_refused_requests_are_not_reported(api: Api, reports: Reports) -> None:
    refused = [
        api.get("/nope"),
        api.withdraw(api.open(), "1"),
        api.deposit(UNKNOWN_ID, "1"),
        api.post("/wallets", {"currency": 1}),
        Api(api.sender).get("/wallets"),
    ]
    assert [answer.status for answer in refused] == [404, 409, 404, 400, 401]
    wait_for_all_reports(api, reports)
    reported_ids = {event["tags"].get("request_id") for event in reports.events}
    assert reported_ids.isdisjoint({answer.headers["x-request-id"] for answer in refused})


@pytest.mark.slow
def test_refused_mail_is_reported_without_its_address(reports: Reports) -> None:
    user = new_person()
    with (
        refusing_mail() as url,
        running_service(SENTRY_DSN=reports.dsn, EMAIL_URL=url, WORKERS="1") as address,
    ):
        ask_for_link(address, user.email)
        [event] = reports.wait_for(lambda event: event["logger"] == "wallets.access.mails")
    error = event["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("SMTPRecipientsRefused", "SMTPRecipientsRefused")
    assert all(user.email not in body for body in reports.bodies)


@pytest.mark.slow
def test_unreachable_trace_collector_is_only_logged(reports: Reports, tmp_path: Path) -> None:
    log = tmp_path / "log"
    unreachable = f"http://127.0.0.1:{free_port()}"
    short_timeouts = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    given = {"SENTRY_DSN": reports.dsn, "OTEL_EXPORTER_OTLP_ENDPOINT": unreachable, **short_timeouts}
    with log.open("wb") as output, running_service(output, **given) as address:
        sender = OverHttp(address)
        with closing(sender.connection):
            api = Api(sender)
            api.open()
            deadline = time.monotonic() + 30
            while '"level":"ERROR","logger":"opentelemetry.' not in log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            wait_for_all_reports(api, reports)
    assert not [event for event in reports.events if event.get("logger", "").startswith("opentelemetry")]


@pytest.mark.slow
def test_failed_command_is_reported(reports: Reports) -> None:
    before = len(reports.events)
    command = [sys.executable, "manage.py", "verify_ledger"]
    with revoked("SELECT ON operation"):
        done = subprocess.run(
            command, env=os.environ | {"SENTRY_DSN": reports.dsn}, capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    [event] = reports.events[before:]
    assert event["exception"]["values"][-1]["value"] == "permission denied for table operation"
    assert event["tags"] == {}
