"""The log: one JSON object per line, with the ids of its request and without secrets."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.db import IntegrityError

from tests.conftest import running_service
from tests.support.client import UNKNOWN_ID, Api, OverHttp
from tests.support.keys import PASSWORD, new_key, new_person
from tests.support.mail import ask_for_link, refusing_mail
from tests.support.people import FORM, Browser
from wallets.access.rights import ADMIN
from wallets.models import User
from wallets.observability import logs
from wallets.observability.logs import Json, Line

SETTINGS = {
    "LOG_LEVEL": "DEBUG",
    "ACCESS_LOG": "on",
    "LOG_FORMAT": "json",
    "API_ACCESS": "key",
    "WORKERS": "1",
}


@dataclass
class LoggedService:
    """A service with its log file."""

    address: str
    file: Path

    @property
    def text(self) -> str:
        return self.file.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["logger"] == "wallets.requests"]

    @contextmanager
    def api(self, key: str | None = None) -> Iterator[Api]:
        sender = OverHttp(self.address)
        yield Api(sender, key)
        sender.connection.close()

    def raw(self, content: bytes) -> bytes:
        address = urlsplit(self.address)
        with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
            received = b""
            with suppress(OSError):  # the service may respond early and close the connection
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            return received

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Wait for the request's line: it is written after the response."""
        deadline = time.monotonic() + 10
        while not (found := [line for line in self.requests if line.get("request_id") == request_id]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        [line] = found
        return line


@contextmanager
def logged_service(folder: Path, **environment: str) -> Iterator[LoggedService]:
    file = folder / "log"
    with file.open("wb") as output, running_service(output, **SETTINGS | environment) as address:
        yield LoggedService(address, file)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedService]:
    # Two workers write into one file.
    with logged_service(tmp_path_factory.mktemp("logged"), WORKERS="2") as service:
        yield service


# --- Lines of requests ------------------------------------------------------------------------------
def test_request_line_has_route_wallet_outcome_and_caller(logged: LoggedService) -> None:
    key = new_key(ADMIN)
    with logged.api(key) as api:
        wallet = api.open()
        answer = api.post(
            f"/wallets/{wallet}/operation",
            {"operationType": "DEPOSIT", "amount": "1"},
            traceparent=TRACEPARENT,
        )
    line = logged.line_of(answer.headers["x-request-id"])
    assert line.pop("duration_ms") > 0
    assert line.pop("time").endswith("Z")
    assert len(line.pop("span_id")) == 16
    assert line == {
        "level": "INFO",
        "logger": "wallets.requests",
        "message": "POST /api/v1/wallets/{wallet_id}/operation 201",
        "request_id": answer.headers["x-request-id"],
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "method": "POST",
        "route": "/api/v1/wallets/{wallet_id}/operation",
        "status": 201,
        "wallet_id": wallet,
        "outcome": "COMPLETED",
        "who": f"key:{key[3:11]}",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "route", "outcome"),
    [
        ("GET", f"/api/v1/wallets/{UNKNOWN_ID}", 401, "/api/v1/wallets/{wallet_id}", "unauthorized"),
        ("GET", "/api/v1/nope", 404, "unknown", "not_found"),
        ("PUT", "/api/schema", 405, "/api/schema", "method_not_allowed"),
        ("GET", "/", 200, "/", None),
        ("GET", "/livez", 200, "/livez", None),
        ("GET", "/static/pages/pages.css", 200, "/static/", None),
        ("GET", "/admin/", 302, "/admin/", None),
        ("POST", "/login", 403, "/login", "forbidden"),
    ],
)
def test_each_response_is_logged_once(  # noqa: PLR0913, PLR0917
    logged: LoggedService, method: str, path: str, status: int, route: str, outcome: str | None
) -> None:
    sender = OverHttp(logged.address)
    answer = sender.send(method, path)
    sender.connection.close()
    line = logged.line_of(answer.headers["x-request-id"])
    assert (line["method"], line["status"], line["route"], line.get("outcome")) == (
        *(method, status, route),
        outcome,
    )


def test_malformed_request_is_logged_without_its_content(logged: LoggedService) -> None:
    before = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # a complete request on the same connection
    assert b" 400 " in logged.raw(before + b"GET / HTTP/1.1\r\nno colon here\r\n\r\n")
    logged_lines = [line for line in logged.lines if line["message"].startswith("Invalid request from ")]
    assert logged_lines[-1]["message"].endswith("InvalidHeader")
    assert "request_id" not in logged_lines[-1]


def test_user_is_logged_by_id(logged: LoggedService) -> None:
    user = new_person()
    browser = Browser(logged.address)
    answer = browser.send(
        "POST", "/api/v1/login", json.dumps({"email": user.email, "password": PASSWORD}).encode()
    )
    assert answer.status == 200
    answer = browser.send("GET", "/api/v1/me")
    browser.connection.close()
    assert logged.line_of(answer.headers["x-request-id"])["who"] == f"user:{user.pk}"


def test_gunicorn_lines_have_the_same_format(logged: LoggedService) -> None:
    logged_lines = [line for line in logged.lines if line["logger"] == "gunicorn.error"]
    assert any(line["message"].startswith("Booting worker") for line in logged_lines)
    assert all(line["time"].endswith("Z") for line in logged.lines)


@pytest.mark.slow
def test_idle_connections_at_shutdown_log_no_error(tmp_path: Path) -> None:
    with ExitStack() as idle, logged_service(tmp_path) as stopping:
        for _ in range(3):
            idle.enter_context(stopping.api()).get("/livez")
    assert {line["level"] for line in stopping.lines} <= {"DEBUG", "INFO"}


def test_concurrent_requests_are_logged_with_their_own_ids(logged: LoggedService) -> None:
    """Requests of one process run in greenlets: each has its own context."""
    key, traces = new_key(ADMIN), {}

    def send(number: int) -> None:
        with logged.api(key) as api:
            for turn in range(10):
                name, trace = f"c-{number}-{turn}", f"{number + 1:016x}{turn + 1:016x}"
                traces[name] = trace
                api.post(
                    f"/wallets/{wallet}/operation",
                    {"operationType": "DEPOSIT", "amount": "1"},
                    X_Request_ID=name,
                    traceparent=f"00-{trace}-00f067aa0ba902b7-00",
                )

    with logged.api(key) as api:
        wallet = api.open()
    threads = [threading.Thread(target=send, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logged_lines = {
        line["request_id"]: line["trace_id"]
        for line in logged.requests
        if line.get("request_id", "").startswith("c-")
    }
    assert logged_lines == traces
    assert len(logged_lines) == 200


@pytest.mark.slow
def test_access_log_off_logs_no_request(tmp_path: Path) -> None:
    with logged_service(tmp_path, ACCESS_LOG="off") as service:
        with service.api() as api:
            api.get("/wallets")
        assert service.requests == []


@pytest.mark.slow
def test_line_format_is_text(tmp_path: Path) -> None:
    with logged_service(tmp_path, LOG_FORMAT="line", LOG_LEVEL="WARNING") as service:
        with service.api() as api:
            api.get("/wallets", X_Request_ID="r-1")
        [line] = [line for line in service.text.split("\n") if "request_id=r-1" in line]
        assert " INFO wallets.requests: GET /api/v1/wallets 401 request_id=r-1 trace_id=" in line
        assert line.endswith("outcome=unauthorized")


# --- Secrets ----------------------------------------------------------------------------------------
SECRET = "hunter2-in-the-log"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FOREIGN: tuple[dict[str, str], ...] = (
    {},
    {"Origin": f"https://{SECRET}.example"},
    {"X-Forwarded-Proto": "https", "Referer": f"https://{SECRET}.example/"},
)


def send_secret_everywhere(service: LoggedService, key: str) -> None:
    """Send requests with the secret in every field, header and path."""
    mail, quoted = f"{SECRET}@example.com", SECRET.encode()
    with service.api(key) as api:
        wallet = api.open(label=SECRET)
        for path in (f"/wallets/{wallet}", "/wallets", "/nope", f"/{SECRET}", f"/wallets/{wallet}/statement"):
            for method in ("GET", "POST", "PATCH", "PUT"):
                api.send(method, f"{path}?{SECRET}={SECRET}", {SECRET: SECRET}, Cookie=f"sessionid={SECRET}")
        api.deposit(wallet, "1", key=SECRET, description=SECRET, metadata={SECRET: SECRET})
        api.deposit(wallet, SECRET)
        api.withdraw(wallet, "100", description=SECRET)
        api.transfer(wallet, wallet, "1", targetEmail=mail)
        for path in ("/signup", "/login", "/login"):
            for fields in ({}, {"name": SECRET}):
                api.post(path, {"email": mail, "password": SECRET} | fields)
        for header in (
            "Authorization",
            "Cookie",
            "traceparent",
            "tracestate",
            "Host",
            "Prefer",
            "X-CSRFToken",
        ):
            for value in (
                SECRET,
                f"Bearer {SECRET}",
                f"Basic {SECRET}",
                f"sessionid={SECRET}",
                f"Bearer wk_abcd1234_{SECRET:-<43}",
            ):
                api.sender.send(
                    "GET",
                    "/api/v1/wallets",
                    None,
                    {header: value} | ({"traceparent": TRACEPARENT} if header == "tracestate" else {}),
                )
    browser = Browser(service.address)
    browser.send("GET", "/login")
    for path in (
        "/login",
        "/signup",
        "/password/forgotten",
        f"/password/reset/{SECRET}/{SECRET}",
        f"/{SECRET}",
        "/admin/login/",
    ):
        form = "&".join(f"{name}={SECRET}" for name in ("email", "username", "password", "password1", "name"))
        browser.send("GET", f"{path}?next={SECRET}")
        for headers in FOREIGN:
            browser.send("POST", path, form.encode(), {"Content-Type": FORM} | headers)
    browser.connection.close()
    for content in (
        b"%s\r\n\r\n" % quoted,
        b"GET /?%s HTTP/1.1\r\nAuthorization: Bearer %s" % (quoted, quoted),
        b"GET /?%s HTTP/9.9\r\n\r\n" % quoted,
        b"GET /%s\r\n\r\n" % quoted,
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer %s\r\n\r\n" % quoted,
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\x00\r\n\r\n" % quoted,
        b"GET / HTTP/1.1\r\nHost: a\r\n%s(: x\r\n\r\n" % quoted,
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %s\r\n\r\n" % quoted,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n" % quoted,
        b"POST /api/v1/wallets?%s HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n%s" % (quoted, quoted),
        b"POST /api/v1/wallets HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n" % quoted,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: %s%s\r\n\r\n" % (quoted, b"a" * 100_000),
        b"GET /?%s%s HTTP/1.1\r\nHost: a\r\n\r\n" % (quoted, b"a" * 10_000),
    ):
        service.raw(content)


@pytest.mark.parametrize(
    ("form", "collector"), [("json", ""), ("line", ""), ("json", "http://127.0.0.1:9")], ids=ascii
)
@pytest.mark.slow
def test_log_contains_no_secret_body_or_path(tmp_path: Path, form: str, collector: str) -> None:
    key = new_key(ADMIN)
    given = {"LOG_FORMAT": form, "OTEL_EXPORTER_OTLP_ENDPOINT": collector, "TRUST_PROXY": "on"}
    with logged_service(tmp_path, LOGIN_LOCKOUT="2/1m", EMAIL_URL="smtp://127.0.0.1:9", **given) as service:
        send_secret_everywhere(service, key)
        assert "POST /api/v1/login" in service.text
    assert SECRET not in service.text
    assert key[12:] not in service.text


@pytest.mark.slow
def test_refused_mail_is_logged_without_its_address(tmp_path: Path) -> None:
    user = new_person()
    with refusing_mail() as url, logged_service(tmp_path, EMAIL_URL=url) as service:
        ask_for_link(service.address, user.email)
        deadline = time.monotonic() + 30
        while f"the mail 'forgotten' to user {user.pk} was not sent" not in service.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert "smtplib.SMTPRecipientsRefused" in service.text
    assert user.email not in service.text


def test_client_input_starts_no_line(logged: LoggedService) -> None:
    forged = '{"level": "ERROR", "message": "forged"}'
    for path in (f"/%0a{forged}", f"/%0d%0a{forged}", "/%e2%80%a8", "/%ed%a0%80", "/\x85"):
        wire = path.replace(" ", "%20").encode("latin-1")
        logged.raw(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % wire)
    logged.raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-ID: a\x0b\x0c{}\r\nConnection: close\r\n\r\n")
    assert all(line["message"] != "forged" for line in logged.lines)


# --- Formats ----------------------------------------------------------------------------------------
def record_of(
    message: str, *args: object, error: BaseException | None = None, **extra: object
) -> logging.LogRecord:
    given = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("some.logger", logging.ERROR, __file__, 1, message, args, given)
    record.__dict__.update(extra)
    return record


def test_message_with_line_breaks_stays_one_line() -> None:
    hostile = "a\r\n\x1b[31m2026-01-01 ERROR forged\u2028\x85\ud800"
    text = Line().format(record_of("said %s", hostile))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert json.loads(Json().format(record_of("said %s", hostile)))["message"].startswith("said a\r\n")


def test_database_error_is_logged_without_stored_values() -> None:
    user = new_person()
    try:
        User.objects.create(username=f"other-{uuid4()}", email=user.email)
    except IntegrityError as error:
        caught = error
    assert user.email.upper() in str(caught)  # PostgreSQL quotes the value in the second line
    for form in (Json(), Line()):
        text = form.format(record_of("it failed: %s", caught, error=caught))
        assert "duplicate key value" in text
        assert "IntegrityError" in text
        assert "test_logs.py" in text
        assert user.email not in text.lower()


def test_traceback_includes_the_cause() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second\nand more") from error
    except ValueError as error:
        logged_lines = logs.traceback_of(error)
    assert (
        logged_lines.index("KeyError: 'first'")
        < logged_lines.index("That exception led to")
        < logged_lines.index("ValueError: second")
    )
    assert logged_lines.endswith("ValueError: second")


def test_django_records_have_the_route_instead_of_the_path() -> None:
    from django.test import RequestFactory

    request = RequestFactory().get("/password/reset/secret")
    message = logs.message_of(record_of("%s: %s", "Internal Server Error", request.path, request=request))
    assert message == "Internal Server Error: refused"
