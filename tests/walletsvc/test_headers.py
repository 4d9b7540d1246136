"""Security headers, CORS headers and redirects."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import override_settings

from tests.conftest import running_service
from tests.support.client import Answer, Api, InProcess, OverHttp
from tests.support.keys import PASSWORD, new_operator
from tests.support.people import MODEL_BACKEND, Browser, new_account, registration
from wallets.pages import wallet
from walletsvc.middleware import Area

COMMON_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
NO_STORE, PRIVATE = "no-store", "private, no-cache"
NEVER = "max-age=0, no-cache, no-store, must-revalidate, private"
HTML = {"Accept": "text/html"}
EVIL = {"Host": "evil.example"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "area", "cache"),
    [
        ("GET", "/api/v1/wallets", {}, 200, Area.API, PRIVATE),
        ("POST", "/api/v1/wallets", {}, 415, Area.API, PRIVATE),
        ("POST", "/api/v1/login", {}, 415, Area.API, PRIVATE),
        ("PUT", "/api/v1/wallets", {}, 405, Area.API, PRIVATE),
        ("GET", "/api/v1/nope", HTML, 404, Area.API, PRIVATE),
        ("GET", "/api/v1/docs", HTML, 404, Area.API, PRIVATE),
        ("GET", "/api/v1/wallets", EVIL, 400, Area.API, PRIVATE),
        ("GET", "/api/schema", {}, 200, Area.API, "public, max-age=60"),
        ("GET", "/api/docs", HTML, 200, Area.DOCS, PRIVATE),
        ("GET", "/api/redoc", HTML, 200, Area.DOCS, PRIVATE),
        ("GET", "/livez", {}, 200, Area.API, PRIVATE),
        ("GET", "/readyz", {}, 200, Area.API, PRIVATE),
        ("GET", "/admin/login/", HTML, 200, Area.ADMIN, NEVER),
        ("GET", "/admin/", HTML, 302, Area.ADMIN, NEVER),
        ("GET", "/admin/nope/", HTML, 302, Area.ADMIN, NEVER),
        ("GET", "/admin/", EVIL, 400, Area.ADMIN, PRIVATE),
        ("GET", "/", HTML, 200, Area.PAGES, NO_STORE),
        ("GET", "/login", HTML, 200, Area.PAGES, NEVER),
        ("GET", "/password", HTML, 302, Area.PAGES, NO_STORE),
        ("POST", "/login", HTML, 403, Area.PAGES, NO_STORE),
        ("GET", "/nope", HTML, 404, Area.PAGES, NO_STORE),
        ("GET", "/nope", {}, 404, Area.PAGES, NO_STORE),
        ("GET", "/", EVIL, 400, Area.PAGES, NO_STORE),
        ("GET", "/static/pages/pages.css", {}, 200, Area.API, "max-age=60, public"),
        ("GET", "/static/nope.css", {}, 404, Area.API, PRIVATE),
    ],
)
def test_each_area_has_its_policy_and_cache_headers(  # noqa: PLR0913, PLR0917
    method: str, path: str, headers: dict[str, str], status: int, area: Area, cache: str
) -> None:
    answer = InProcess(enforce_csrf_checks=True).send(method, path, headers=headers)
    assert answer.status == status
    assert COMMON_HEADERS.items() <= answer.headers.items()
    assert answer.headers["content-security-policy"] == area.value
    assert answer.headers["cache-control"] == cache


def test_pages_of_a_session_have_the_same_headers() -> None:
    person = new_account("1")
    sender, operator = InProcess(), InProcess()
    sender.client.force_login(person.user, backend=MODEL_BACKEND)
    operator.client.force_login(new_operator(is_superuser=True), backend=MODEL_BACKEND)
    for answer, area in (
        (sender.send("GET", "/"), Area.PAGES),
        (sender.send("GET", f"/wallets/{person.wallet_id}/statement.csv"), Area.PAGES),
        (sender.send("GET", f"/wallets/{person.wallet_id}/balance"), Area.PAGES),
        (sender.send("GET", "/wallets/x"), Area.PAGES),
        (sender.send("GET", "/api/v1/me/wallet"), Area.API),
        (operator.send("GET", "/admin/"), Area.ADMIN),
        (operator.send("GET", "/admin/nope/"), Area.ADMIN),
        (operator.send("GET", f"/admin/wallets/wallet/{person.wallet_id}/change/"), Area.ADMIN),
    ):
        assert COMMON_HEADERS.items() <= answer.headers.items()
        assert answer.headers["content-security-policy"] == area.value
        assert "no-store" in answer.headers["cache-control"] or area is not Area.PAGES


@pytest.mark.parametrize("error", [RuntimeError("secret"), OperationalError("secret")])
def test_error_responses_have_the_same_headers(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(wallet, "main_wallet", fail)
    monkeypatch.setattr("wallets.access.people.main_wallet", fail)
    sender = InProcess()
    sender.client.force_login(new_account().user, backend=MODEL_BACKEND)
    with caplog.at_level(logging.ERROR):
        answers = ((sender.send("GET", "/"), Area.PAGES), (sender.send("GET", "/api/v1/me"), Area.API))
    for answer, area in answers:
        assert answer.status in (500, 503)
        assert b"secret" not in answer.content
        assert COMMON_HEADERS.items() <= answer.headers.items()
        assert answer.headers["content-security-policy"] == area.value


def test_policies_of_pages_and_api_forbid_inline_scripts() -> None:
    for area in (Area.PAGES, Area.API):
        assert "unsafe" not in area.value
        assert area.value.startswith("default-src 'none'; ")
    for area in Area:
        assert "frame-ancestors 'none'" in area.value
        assert "*" not in area.value
        assert "http" not in area.value  # nothing from another host


def test_page_has_no_inline_script_or_style() -> None:
    sender = InProcess()
    sender.client.force_login(new_account("1").user, backend=MODEL_BACKEND)
    page = sender.send("GET", "/").content.decode()
    for refused in ("style=", "onclick=", "onload=", "<style", "javascript:", "<script>", "hx-on", "http://"):
        assert refused not in page


# --- Behind a proxy, with HTTPS ---------------------------------------------------------------------
SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    settings = {
        "HTTPS": "on",
        "TRUST_PROXY": "on",
        "CORS_ALLOWED_ORIGINS": SHOP,
        "EMAIL_URL": "consolemail://",
    }
    with running_service(WORKERS="1", **settings) as address:
        yield address


@pytest.fixture
def browser(service: str) -> Iterator[Browser]:
    browser = Browser(service, X_Forwarded_Proto="https")
    with closing(browser.connection):
        yield browser


@pytest.mark.slow
def test_https_sends_hsts_and_redirects(service: str, browser: Browser) -> None:
    for path in ("/", "/nope", "/api/v1/nope", "/static/pages/pages.css", "/admin/login/"):
        answer = browser.send("GET", path)
        assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains; preload"
    plain = OverHttp(service)
    with closing(plain.connection):
        answer = plain.send("GET", "/login?next=/password")
        assert (answer.status, answer.headers["location"]) == (
            301,
            f"{service.replace('http', 'https')}/login?next=/password",
        )
        assert COMMON_HEADERS.items() <= answer.headers.items()
        assert plain.send("GET", "/livez").status == 200


def test_request_with_a_body_is_not_redirected_to_https() -> None:
    """Clients repeat a redirected POST as a GET, without its body."""
    api = Api()
    wallet_id = api.open()
    with override_settings(SECURE_SSL_REDIRECT=True):
        refused = api.deposit(wallet_id, 1)
        assert (refused.status, refused.code) == (400, "bad_request")
        assert "HTTPS" in refused.json["detail"]
    assert api.balance(wallet_id) == "0.00"


@pytest.mark.slow
def test_https_marks_cookies_as_secure(browser: Browser) -> None:
    assert Api(browser).post("/signup", registration()).status == 201
    assert Api(browser).get("/me").status == 200
    assert {name: bool(morsel["secure"]) for name, morsel in browser.cookies.items()} == {
        "sessionid": True,
        "csrftoken": True,
    }


def test_https_refuses_a_form_of_another_site(browser: Browser) -> None:
    browser.send("GET", "/login")
    person = new_account().user
    fields = {"username": person.email, "password": PASSWORD}
    assert browser.post_form("/login", **fields).status == 403  # without Referer or Origin
    browser.always["Referer"] = "https://evil.example/"
    assert browser.post_form("/login", **fields).status == 403
    assert "sessionid" not in browser.cookies
    browser.always["Referer"] = f"https://127.0.0.1:{browser.connection.port}/login"
    assert browser.post_form("/login", **fields).status == 302


def test_login_offers_password_reset_if_mail_is_configured(browser: Browser) -> None:
    assert b'href="/password/forgotten"' in browser.send("GET", "/login").content


# --- Pages of other origins -------------------------------------------------------------------------
def preflight(sender: Any, origin: str, path: str = "/api/v1/transfers") -> Answer:
    names = "authorization, content-type, idempotency-key, if-match, if-none-match, prefer, x-request-id"
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    answer: Answer = sender.send("OPTIONS", path, headers={"Origin": origin, **headers})
    return answer


def access_control(answer: Answer) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


def test_cors_is_off_by_default() -> None:
    sender = InProcess()
    for path in ("/api/v1/wallets", "/api/v1/me", "/", "/api/schema"):
        assert access_control(sender.send("GET", path, headers={"Origin": SHOP})) == set()
        assert access_control(preflight(sender, SHOP, path)) == set()


def test_configured_origin_may_call_the_api_with_a_key(browser: Browser) -> None:
    answer = preflight(browser, SHOP)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, SHOP)
    allowed = set(answer.headers["access-control-allow-headers"].split(", "))
    assert {"authorization", "content-type", "idempotency-key", "prefer", "if-match"} <= allowed
    assert {"traceparent", "tracestate", "last-event-id"} <= allowed
    assert "x-csrftoken" not in allowed
    assert {"GET", "POST", "PATCH"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    read = browser.send("GET", "/api/v1/wallets?limit=1", headers={"Origin": SHOP})
    assert (read.status, read.headers["access-control-allow-origin"]) == (200, SHOP)
    assert "origin" in read.headers["vary"].lower()
    exposed = set(read.headers["access-control-expose-headers"].split(", "))
    assert {"idempotent-replayed", "location", "retry-after", "x-request-id", "etag"} <= exposed
    assert {"traceresponse", "content-disposition"} <= exposed
    for found in (answer, read):
        assert "access-control-allow-credentials" not in found.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://shop.example",
        f"{SHOP}.evil.example",
        f"{SHOP}:444",
        "null",
        "*",
        "",
        "x\ty",
    ],
)
def test_other_origin_gets_no_cors_headers(browser: Browser, origin: str) -> None:
    for answer in (
        preflight(browser, origin),
        browser.send("GET", "/api/v1/wallets?limit=1", headers={"Origin": origin}),
        browser.send("GET", "/api/v1/nope", headers={"Origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers


def test_pages_and_admin_have_no_cors_headers(browser: Browser) -> None:
    for path in ("/", "/login", "/admin/login/"):
        assert access_control(browser.send("GET", path, headers={"Origin": SHOP})) == set()


def test_other_origins_may_use_every_header_of_the_document() -> None:
    document = InProcess().send("GET", "/api/schema?format=json").json
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    sent = {
        parameter["name"].lower()
        for operation in operations
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    }
    received = {
        name.lower()
        for operation in operations
        for answer in operation["responses"].values()
        for name in answer.get("headers", {})
    }
    assert "last-event-id" in sent
    assert "ratelimit" in received
    assert sent <= set(settings.CORS_ALLOW_HEADERS)
    assert received | {"content-disposition", "allow"} <= set(settings.CORS_EXPOSE_HEADERS)


# --- Redirects --------------------------------------------------------------------------------------
FOREIGN_TARGETS = [
    "//evil.com",
    "///evil.com",
    "https:evil.com",
    "https://evil.com",
    "http:///evil.com",
    "/\\evil.com",
    "\\\\evil.com",
    "/\t/evil.com",
    "\x08//evil.com",
    " //evil.com",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)//",
    "data:text/html,x",
    "//testserver@evil.com",
    "https://testserver@evil.com/",
    "https://testserver.evil.com/",
    "ftp://testserver/",
    "/login",
    "x" * 5000 + "://",
]


@pytest.mark.usefixtures("quick_hashing")
@pytest.mark.parametrize("target", FOREIGN_TARGETS)
def test_redirects_stay_on_this_service(target: str) -> None:
    person = new_account().user
    client = InProcess().client
    form = {"username": person.email, "password": PASSWORD, "next": target}
    assert client.post("/login", form)["Location"] == "/"
    assert client.get("/login", {"next": target})["Location"] == "/"  # logged in already
    if target != "/login":
        assert client.post("/language", {"language": "ru", "next": target})["Location"] == "/"
        chosen = client.post("/language", {"language": "ru"}, headers={"Referer": target})
        assert chosen["Location"] == "/"
    page = InProcess().send("GET", "/login?" + f"next={target!r}").content.decode()
    assert 'href="javascript' not in page.lower()
    assert 'evil.com"' not in page.replace('name="next" value', "")


@pytest.mark.usefixtures("quick_hashing")
def test_login_redirects_to_the_requested_page() -> None:
    person = new_account()
    client = InProcess().client
    response = client.get(f"/wallets/{person.wallet_id}?kind=DEPOSIT")
    assert response["Location"] == f"/login?next=/wallets/{person.wallet_id}%3Fkind%3DDEPOSIT"
    form = {"username": person.user.email, "password": PASSWORD, "next": f"/wallets/{person.wallet_id}"}
    assert client.post("/login", form)["Location"] == f"/wallets/{person.wallet_id}"


def test_chosen_language_is_kept_and_unknown_ones_ignored() -> None:
    client = InProcess().client
    assert client.post("/language", {"language": "ru", "next": "/login"})["Location"] == "/login"
    assert "Войти" in client.get("/login").content.decode()
    for language in ("xx", "../../etc", "ru\0", "", "ы"):
        assert client.post("/language", {"language": language, "next": "/login"}).status_code == 302
        assert "Войти" in client.get("/login").content.decode()
