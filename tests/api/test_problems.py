"""All errors have the same format, independent of the layer that raises them."""

import html
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import InterfaceError, OperationalError
from django.test import override_settings
from psycopg import errors as postgres

from tests.support.client import UNKNOWN_ID, Answer, Api
from wallets import ledger, problems
from wallets.problems import Problem


def every_problem() -> list[type[Problem]]:
    return [
        kind
        for kind in vars(problems).values()
        if isinstance(kind, type) and issubclass(kind, Problem) and kind is not Problem
    ]


def test_codes_are_unique_and_statuses_are_errors() -> None:
    codes = [kind.code for kind in every_problem()]
    assert len(codes) == len(set(codes))
    assert all(400 <= kind.status <= 503 for kind in every_problem())


def assert_is_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    problem = answer.json
    assert problem["status"] == status
    assert {"type", "title", "detail", "requestId"} <= problem.keys()
    assert problem["type"] == f"/errors/{code}"
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.content.decode()


@pytest.fixture(params=[False, True], ids=["DEBUG=off", "DEBUG=on"])
def debug(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(DEBUG=request.param):
        yield


@pytest.mark.usefixtures("debug")
@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nope",
        "/api/v1/wallets/",
        "/api/v2/wallets",
        "/%00",
        "/admin",
        "/%ff",
    ]
    + ["/static/nope.css", "/static/../manage.py", "/api/v1/wallets/a/b/c"],
)
def test_unknown_url_is_not_found(api: Api, path: str) -> None:
    assert_is_problem(api.sender.send("GET", path), 404, "not_found")


def test_slash_too_many_is_named(api: Api) -> None:
    wallet_id = api.open()
    for path in ("/api/v1/wallets/", f"/api/v1/wallets/{wallet_id}/", "/api/schema/", "/livez/"):
        answer = api.sender.send("GET", path)
        assert_is_problem(answer, 404, "not_found")
        assert answer.json["detail"].endswith("Leave out the slash at the end.")
    for path in ("/api/v1/nope/", "/api/v1/wallets//x", "/nope"):
        assert "slash" not in api.sender.send("GET", path).json["detail"]


@pytest.mark.usefixtures("debug")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v1/wallets", "GET, POST"),
        ("PUT", "/api/v1/wallets", "GET, POST"),
        ("OPTIONS", "/api/v1/wallets", "GET, POST"),
        ("GET", "/api/v1/wallet", "POST"),
        ("GET", "/api/v1/wallet/create", "POST"),
        ("DELETE", f"/api/v1/wallets/{UNKNOWN_ID}", "GET, PATCH"),
        ("GET", f"/api/v1/wallets/{UNKNOWN_ID}/operation", "POST"),
        ("POST", f"/api/v1/wallets/{UNKNOWN_ID}/operations", "GET"),
        ("PATCH", f"/api/v1/operations/{UNKNOWN_ID}", "GET"),
        ("TRACE", "/api/v1/wallets", "GET, POST"),
        ("NONSENSE", "/api/v1/wallets", "GET, POST"),
    ],
)
def test_unknown_method_is_not_allowed(api: Api, method: str, path: str, allow: str) -> None:
    answer = api.sender.send(method, path)
    assert_is_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == set(allow.split(", "))


def test_head_answers_like_get(api: Api) -> None:
    answer = api.sender.send("HEAD", f"/api/v1/wallets/{api.open()}")
    assert (answer.status, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml", "image/*", "application/json;q=0", "application/json;q=0, */*"]
)
def test_other_format_is_not_acceptable(api: Api, accept: str) -> None:
    assert_is_problem(api.get("/wallets", Accept=accept), 406, "not_acceptable")


@pytest.mark.parametrize(
    "accept",
    [
        *("*/*", "application/json", "text/html, application/json;q=0.5", "application/*", ""),
        *("application/json; charset=utf-8", "Application/JSON;charset=UTF-8;q=0.2", "application/json;v=2"),
    ],
)
def test_json_is_acceptable(api: Api, accept: str) -> None:
    assert api.get("/wallets", Accept=accept).status == 200


@pytest.mark.usefixtures("debug")
@pytest.mark.parametrize("host", ["evil.example", "a b", "localhost:x", "[", "localhost/../x"])
def test_unknown_host_is_refused(api: Api, host: str) -> None:
    answer = api.get("/wallets", Host=host)
    assert_is_problem(answer, 400, "bad_request")
    assert "ALLOWED_HOSTS" in answer.json["detail"]


def test_request_without_a_key_is_unauthorized(api: Api) -> None:
    wallet_id = api.open()
    with override_settings(API_ACCESS="key"):
        for answer in (
            api.get("/wallets"),
            api.deposit(wallet_id, 1),
            api.post("/wallets", {}, Authorization="Bearer x"),
        ):
            assert_is_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert api.balance(wallet_id) == "0.00"


# --- The pages of the codes -------------------------------------------------------------------------
@pytest.mark.parametrize("kind", every_problem(), ids=lambda kind: kind.code)
def test_type_of_a_problem_is_its_page(api: Api, kind: type[Problem]) -> None:
    page = api.sender.send("GET", kind().as_json("")["type"])
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = html.unescape(re.sub(r"</?code>", "`", page.content.decode()))
    for shown in (kind.title, str(kind.status), kind.code, kind.cause[1:], kind.action[1:]):
        assert shown in text


def test_page_of_a_code_is_cached_and_needs_no_session(api: Api) -> None:
    with override_settings(API_ACCESS="key"):
        page = api.sender.send("GET", "/errors/forbidden")
    assert page.headers["cache-control"] == "public, max-age=3600"
    assert not {"set-cookie", "vary"} & page.headers.keys()
    assert "script" not in page.content.decode()
    assert api.sender.send("HEAD", "/errors/forbidden").content == b""


def test_unknown_code_has_no_page(api: Api) -> None:
    for path in ("/errors/nothing", "/errors/", "/errors/forbidden/x", "/errors/Forbidden"):
        assert_is_problem(api.sender.send("GET", path), 404, "not_found")
    answer = api.sender.send("POST", "/errors/forbidden", b"{}")
    assert_is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_type_of_a_problem_begins_with_the_public_url(api: Api, settings: LazySettings) -> None:
    settings.PUBLIC_URL = "https://wallets.example.com"
    assert api.get("/nope").json["type"] == "https://wallets.example.com/errors/not_found"
    item = {"walletId": UNKNOWN_ID, "operationType": "DEPOSIT", "amount": 1}
    (result,) = api.bulk(item).json["results"]
    assert result["problem"]["type"] == "https://wallets.example.com/errors/wallet_not_found"


# --- Server errors ----------------------------------------------------------------------------------
def failing(error: Exception) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return fail


@pytest.mark.usefixtures("debug")
def test_unexpected_error_is_logged_and_not_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wallet_id = api.open()
    monkeypatch.setattr(ledger, "submit", failing(RuntimeError("secret")))
    with caplog.at_level(logging.ERROR):
        answer = api.deposit(wallet_id, 1)
    assert_is_problem(answer, 500, "internal_error")
    assert b"secret" not in answer.content
    assert "RuntimeError: secret" in caplog.text


@pytest.mark.usefixtures("debug")
@pytest.mark.parametrize(
    "error", [OperationalError("server closed the connection"), InterfaceError("closed")]
)
def test_database_failure_is_answered_as_unavailable(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    wallet_id = api.open()
    monkeypatch.setattr(ledger, "submit", failing(error))
    answer = api.deposit(wallet_id, 1)
    assert_is_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_wallet_locked_too_long_is_busy(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet_id = api.open()
    error = OperationalError()
    error.__cause__ = postgres.LockNotAvailable()
    monkeypatch.setattr(ledger, "submit", failing(error))
    answer = api.deposit(wallet_id, 1)
    assert_is_problem(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "1"


# --- X-Request-ID -----------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/livez", "/api/v1/wallets", "/nope", "/admin/login/"])
def test_every_response_has_a_request_id(api: Api, path: str) -> None:
    assert api.sender.send("GET", path).headers["x-request-id"]
    assert api.sender.send("GET", path, headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<b>", "я", "a\r\nX-Evil: 1"])
def test_invalid_request_id_is_replaced(api: Api, given: str) -> None:
    answer = api.get("/wallets", X_Request_ID=given)
    assert answer.headers["x-request-id"] != given
    assert "x-evil" not in answer.headers
