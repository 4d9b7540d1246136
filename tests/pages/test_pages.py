"""The pages for users: permissions, hostile requests, and transfers."""

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape, unescape
from typing import Any
from urllib.parse import parse_qs, quote
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.conf import LazySettings
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client

from tests.conftest import Books, Unchanged
from tests.support.client import UNKNOWN_ID, Api
from tests.support.keys import PASSWORD, new_operator, session_of
from tests.support.mail import link_in, mailed
from tests.support.people import (
    MODEL_BACKEND,
    Person,
    bank,
    new_account,
    new_address,
    new_wallet,
    registration,
)
from wallets import ledger
from wallets.access import verification
from wallets.access.attempts import MAX_FORM_BYTES
from wallets.models import Operation, User, Wallet
from wallets.pages import transfers, urls
from wallets.problems import Unavailable

pytestmark = pytest.mark.usefixtures("quick_hashing")

NEW_PASSWORD = "nine green elephants"


def browser(user: User | None = None, **options: Any) -> Client:
    client = Client(raise_request_exception=False, **options)
    if user:
        client.force_login(user, backend=MODEL_BACKEND)
    return client


def text_of(response: Any) -> str:
    """Return the text of a page, or of a streamed response."""
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return str(content.decode())


@dataclass(frozen=True)
class Page:
    path: str
    methods: str = "GET HEAD"
    is_public: bool = False


PAGES = {
    "home": Page("/", is_public=True),
    "signup": Page("/signup", "GET HEAD POST", is_public=True),
    "login": Page("/login", "GET HEAD POST", is_public=True),
    "logout": Page("/logout", "POST", is_public=True),
    "password": Page("/password", "GET HEAD POST"),
    "forgotten": Page("/password/forgotten", "GET HEAD POST", is_public=True),
    "new_password": Page("/password/new/MQ/x", "GET HEAD POST", is_public=True),
    "verify_email": Page("/email/verify/1/x", "GET HEAD POST", is_public=True),
    "send_verification": Page("/email/verify", "POST"),
    "language": Page("/language", "POST", is_public=True),
    "wallet": Page("/wallets/{wallet}"),
    "balance": Page("/wallets/{wallet}/balance"),
    "statement": Page("/wallets/{wallet}/statement.csv"),
    "transfer": Page("/wallets/{wallet}/transfer", "GET HEAD POST"),
    "transfer_by_id": Page("/transfers/{transfer}"),
}
WITH_SESSION = {name: page for name, page in PAGES.items() if not page.is_public}
WITH_OWNER = {name: page for name, page in PAGES.items() if "{" in page.path}


@dataclass(frozen=True)
class Scenario:
    anna: Person
    boris: Person
    transfer_id: str

    def path(self, page: Page) -> str:
        return page.path.format(wallet=self.anna.wallet_id, transfer=self.transfer_id)


@pytest.fixture
def scenario() -> Scenario:
    anna, boris = new_account("100"), new_account()
    transfer = session_of(anna.user).transfer(anna.wallet_id, boris.wallet_id, "40", description="rent")
    return Scenario(anna, boris, transfer.json["id"])


# --- Access -----------------------------------------------------------------------------------------
def test_every_page_is_in_the_table() -> None:
    assert {pattern.name for pattern in urls.urlpatterns} == set(PAGES)


@pytest.mark.parametrize("name", WITH_SESSION)
def test_page_without_a_session_redirects_to_login(scenario: Scenario, name: str) -> None:
    path = scenario.path(PAGES[name])
    for method in PAGES[name].methods.split():
        answer = browser().generic(method, path)
        assert (answer.status_code, answer["Location"]) == (302, f"/login?next={path}")
    part = browser().generic(PAGES[name].methods.split()[0], path, headers={"HX-Request": "true"})
    assert (part.status_code, part.content, part["HX-Redirect"]) == (200, b"", "/login")


def test_transfer_without_a_session_redirects_to_login(scenario: Scenario, unchanged: Unchanged) -> None:
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        answer = browser().post(scenario.path(PAGES["transfer"]), transfer_form(scenario.boris, step="send"))
    assert answer["Location"].startswith("/login?next=")


@pytest.mark.parametrize("name", [name for name in WITH_SESSION if "GET" in PAGES[name].methods])
def test_own_pages_open(scenario: Scenario, name: str) -> None:
    answer = browser(scenario.anna.user).get(scenario.path(PAGES[name]))
    assert answer.status_code == 200
    assert text_of(answer)


@pytest.mark.parametrize("name", WITH_OWNER)
def test_foreign_pages_are_not_found_even_for_operators(
    scenario: Scenario, name: str, unchanged: Unchanged
) -> None:
    path = scenario.path(PAGES[name])
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        for user in (new_account("5").user, new_operator(is_superuser=True)):
            answers = [browser(user).get(path)]
            if "POST" in PAGES[name].methods:
                answers += [
                    browser(user).post(path, transfer_form(scenario.boris, step=step))
                    for step in ("review", "send")
                ]
            for answer in answers:
                assert answer.status_code == 404
                assert "<!doctype html>" in text_of(answer)
                assert "100" not in text_of(answer).split("<main")[1]


def test_both_sides_see_a_transfer(scenario: Scenario) -> None:
    path = scenario.path(PAGES["transfer_by_id"])
    assert "<h1>Sent</h1>" in text_of(browser(scenario.anna.user).get(path))
    received = text_of(browser(scenario.boris.user).get(path))
    assert "<h1>Received</h1>" in received
    assert "60.00" not in received  # the balance of the sender


def test_only_the_sender_sees_a_refused_transfer(scenario: Scenario) -> None:
    refused = session_of(scenario.anna.user).transfer(
        scenario.anna.wallet_id, scenario.boris.wallet_id, "1000"
    )
    path = f"/transfers/{refused.json['operationId']}"
    page = text_of(browser(scenario.anna.user).get(path))
    assert "<h1>Refused</h1>" in page
    assert "The amount exceeds the available balance." in page
    assert browser(scenario.boris.user).get(path).status_code == 404


def test_pending_transfer_has_no_receipt(scenario: Scenario) -> None:
    body = {
        "sourceWalletId": scenario.anna.wallet_id,
        "targetWalletId": scenario.boris.wallet_id,
        "amount": "1",
    }
    accepted = session_of(scenario.anna.user).post("/transfers", body, Prefer="respond-async")
    answer = browser(scenario.anna.user).get(f"/transfers/{accepted.json['id']}")
    assert "<h1>Sent</h1>" not in text_of(answer)
    assert answer.status_code == 404


def test_user_without_a_wallet_gets_a_message() -> None:
    page = browser(new_operator()).get("/")
    assert (page.status_code, "You have no wallet" in text_of(page)) == (200, True)


# --- Invalid requests -------------------------------------------------------------------------------
@pytest.mark.usefixtures("with_mail")
@pytest.mark.parametrize("name", PAGES)
def test_unsupported_method_is_not_allowed(scenario: Scenario, name: str, unchanged: Unchanged) -> None:
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - set(PAGES[name].methods.split())
    with unchanged(scenario.anna.wallet_id):
        for user in (None, scenario.anna.user) if PAGES[name].is_public else (scenario.anna.user,):
            if user and name == "login":
                continue  # the page redirects a logged-in user for every method
            if name == "new_password":
                continue  # an invalid link is 404 for every method
            for method in methods:
                answer = browser(user).generic(method, scenario.path(PAGES[name]))
                assert answer.status_code == 405, method
                assert "GET" in answer["Allow"] or "POST" in answer["Allow"]
                assert method == "HEAD" or "<h1>" in text_of(answer)


@pytest.mark.parametrize("name", WITH_OWNER)
@pytest.mark.parametrize(
    "id",
    [
        "x",
        "0" * 36,
        UNKNOWN_ID,
        "00000000-0000-0000-0000-000000000000",
        "' OR 1=1 --",
        "%00",
        "\n",
        "..",
        "ы" * 36,
    ]
    + ["{" + UNKNOWN_ID + "}", "urn:uuid:" + UNKNOWN_ID, "x" * 10_000, "%ff%fe", "null"],
)
def test_invalid_id_is_not_found(name: str, id: str) -> None:
    path = PAGES[name].path.format(wallet=quote(id, safe="%"), transfer=quote(id, safe="%"))
    answer = browser(new_account().user).get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert "<!doctype html>" in text_of(answer)


HOSTILE = [
    *("9999-12-31", "9999-12-30", "0001-01-01", "0000-00-00", "2026-02-30", "10000-01-01", "-1", "nonsense"),
    *("'; DROP TABLE wallet; --", "\0", "%", "x" * 3000, "ы", "\ud7ff", "<script>", "2026-01-01T00:00:00Z"),
    *("31.12.9999", "12/31/9999", "١٩٩٩-01-01"),
]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("wallet", "since until"),
        ("wallet", "kind cursor"),
        ("statement", "since until"),
        ("statement", "kind x"),
        ("balance", "seen x"),
    ],
)
@pytest.mark.slow
def test_hostile_query_causes_no_server_error(scenario: Scenario, name: str, parameters: str) -> None:
    # Russian has more date formats than English.
    client = browser(scenario.anna.user, headers={"Accept-Language": "ru"})
    for value in HOSTILE:
        for parameter in parameters.split():
            answer = client.get(scenario.path(PAGES[name]), {parameter: value})
            page = text_of(answer)
            assert answer.status_code in (200, 400), value
            assert "<script>" not in page


@pytest.mark.parametrize(
    "dates",
    [
        ("0001-01-01", "9999-12-30"),
        ("9999-12-30", "0001-01-01"),
        ("9999-12-31", "9999-12-31"),
        ("2026-01-02", "2026-01-01"),
        ("", "0001-01-01"),
        ("9999-12-30", ""),
    ],
)
def test_extreme_period_causes_no_server_error(scenario: Scenario, dates: tuple[str, str]) -> None:
    for name in ("wallet", "statement"):
        query = {"since": dates[0], "until": dates[1]}
        answer = browser(scenario.anna.user).get(scenario.path(PAGES[name]), query)
        text_of(answer)
        assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    "cursor",
    [
        '{"created_at":"0001-01-01T00:00:00+14:00","id":"ID","list_name":"LIST","filters":{}}',
        '{"created_at":"9999-12-31T23:59:59.999999-14:00","id":"ID","list_name":"LIST","filters":{}}',
        '{"created_at":"2026-01-01T00:00:00","id":"ID","list_name":"LIST","filters":{}}',
        '{"created_at":1e300,"id":"ID","list_name":"LIST","filters":{}}',
        '{"created_at":"2026-01-01T00:00:00Z","id":"ID","list_name":"LIST","filters":{"type":"DEPOSIT"}}',
        '{"created_at":"2026-01-01T00:00:00Z","id":"ID","list_name":"LIST","filters":{"limit":"100000"}}',
        '{"created_at":"2026-01-01T00:00:00Z","id":"x","list_name":"LIST","filters":{}}',
        "[]",
        "[" * 100_000,
        "null",
        "\\ud800",
    ],
)
def test_invented_cursor_is_refused_without_an_error(scenario: Scenario, cursor: str) -> None:
    from base64 import urlsafe_b64encode

    cursor_json = cursor.replace("ID", str(uuid4())).replace("LIST", f"history of {scenario.anna.wallet_id} ")
    encoded = urlsafe_b64encode(cursor_json.encode()).decode()
    for text in (encoded, encoded.rstrip("="), cursor):
        answer = browser(scenario.anna.user).get(scenario.path(PAGES["wallet"]), {"cursor": text})
        assert answer.status_code in (200, 400)
        assert "<!doctype html>" in text_of(answer)


def test_history_cursor_is_bound_to_wallet_and_filters() -> None:
    anna, other = new_account(), new_account()
    for amount in range(1, 30):
        bank().deposit(anna.wallet_id, amount)
    client = browser(anna.user)
    older = re.search(r'href="(\?[^"]*)" rel="next"', text_of(client.get(f"/wallets/{anna.wallet_id}")))
    assert older
    cursor = parse_qs(unescape(older[1])[1:])["cursor"][0]
    assert client.get(f"/wallets/{anna.wallet_id}", {"cursor": cursor}).status_code == 200
    assert client.get(f"/wallets/{anna.wallet_id}", {"cursor": cursor, "kind": "DEPOSIT"}).status_code == 400
    assert browser(other.user).get(f"/wallets/{other.wallet_id}", {"cursor": cursor}).status_code == 400


def test_history_is_read_page_by_page() -> None:
    anna = new_account()
    for amount in range(1, 46):
        bank().deposit(anna.wallet_id, amount)
    client, seen, path = browser(anna.user), list[str](), f"/wallets/{anna.wallet_id}?kind=DEPOSIT"
    for _ in range(3):
        page = text_of(client.get(path))
        seen += re.findall(r"\+([0-9]+)\.00", page)
        older = re.search(r'href="(\?[^"]*)" rel="next"', page)
        path = f"/wallets/{anna.wallet_id}{unescape(older[1])}" if older else ""
    assert path == ""
    assert seen == [str(amount) for amount in range(45, 0, -1)]


# --- The reader's days ------------------------------------------------------------------------------
EAST, WEST = "Pacific/Kiritimati", "Etc/GMT+12"  # 26 hours apart: a moment has different days there


def rows_of(statement: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(statement.removeprefix("\ufeff"), newline=""), strict=True))


def test_history_and_statement_have_the_days_of_the_reader() -> None:
    anna = new_account()
    deposit = bank().deposit(anna.wallet_id, 7).json
    moment = datetime.fromisoformat(deposit["createdAt"])
    client, path = browser(anna.user), f"/wallets/{anna.wallet_id}"
    days = {zone: moment.astimezone(ZoneInfo(zone)).date().isoformat() for zone in (EAST, WEST)}
    for zone in (EAST, WEST):
        for day in days.values():
            query = {"since": day, "until": day, "zone": zone}
            is_there = day == days[zone]
            page = text_of(client.get(path, query))
            assert ("+7.00" in page, "No operations." in page) == (is_there, not is_there)
            assert f'value="{zone}"' in page
            answer = client.get(f"{path}/statement.csv", query)
            types = [row[2] for row in rows_of(text_of(answer))[1:]]
            assert types == ["OPENING_BALANCE", *(["DEPOSIT"] if is_there else []), "CLOSING_BALANCE"]
            assert f"statement-{day}-" in answer["Content-Disposition"] or not is_there


@pytest.mark.parametrize(
    "days", [("3026-01-01", "3026-01-02"), ("3026-01-01", ""), ("2026-01-02", "2026-01-01")], ids=repr
)
def test_statement_of_days_without_operations_is_empty(days: tuple[str, str]) -> None:
    anna = new_account("5")
    query = {"since": days[0], "until": days[1]}
    answer = browser(anna.user).get(f"/wallets/{anna.wallet_id}/statement.csv", query)
    assert answer.status_code == 200
    _, first, last = rows_of(text_of(answer))
    assert (first[2], last[2], first[4]) == ("OPENING_BALANCE", "CLOSING_BALANCE", last[4])


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "\0", "x" * 200, "Europe", "utc+3"])
def test_unknown_time_zone_is_an_error_of_its_field(zone: str) -> None:
    anna = new_account("5")
    page = browser(anna.user).get(f"/wallets/{anna.wallet_id}", {"zone": zone, "since": "3026-01-01"})
    assert page.status_code == 200
    assert re.search(r'name="zone"[^>]*aria-invalid="true"', text_of(page))


@pytest.mark.parametrize("zone", [EAST, WEST])
def test_first_and_last_days_are_no_fault_in_any_zone(zone: str) -> None:
    anna = new_account("5")
    for name in ("", "/statement.csv"):
        query = {"since": "0001-01-01", "until": "9999-12-30", "zone": zone}
        answer = browser(anna.user).get(f"/wallets/{anna.wallet_id}{name}", query)
        assert (answer.status_code, "5.00" in text_of(answer)) == (200, True)


def test_unknown_url_is_a_page_or_a_problem() -> None:
    for method in ("GET", "POST", "DELETE"):
        for path in (
            "/nope",
            "/admin",
            "/wallets",
            "/wallets/",
            "/nope.php?x=<script>",
            "/%00",
        ):
            client = browser(enforce_csrf_checks=True)
            page = client.generic(method, path, headers={"Accept": "text/html,*/*;q=0.8"})
            assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
            assert "<script>" not in text_of(page)
            for accept in ("*/*", "application/json", ""):
                problem = client.generic(method, path, headers={"Accept": accept})
                assert (problem.status_code, problem["Content-Type"]) == (404, "application/problem+json")
        for path in ("/api", "/api/", "/api/nope", "/api/v1/nope", "/api/v2/wallets"):
            problem = browser().generic(method, path, headers={"Accept": "text/html"})
            assert (problem.status_code, problem["Content-Type"]) == (404, "application/problem+json")


# --- Forms ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "POST" in page.methods])
def test_form_of_another_site_is_refused_with_a_page(
    scenario: Scenario, name: str, unchanged: Unchanged
) -> None:
    client = browser(scenario.anna.user, enforce_csrf_checks=True)
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        answer = client.post(scenario.path(PAGES[name]), transfer_form(scenario.boris, step="send"))
    assert answer.status_code == 403
    assert "This form has expired." in text_of(answer)
    assert client.get("/password").status_code == 200  # still logged in


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"garbage", "multipart/form-data", 400),
        (b"garbage", "multipart/form-data; boundary=x", 403),
        (b"--x\r\n" * 3000, "multipart/form-data; boundary=x", 400),
        (b"{}", "application/json", 403),
    ],
)
def test_malformed_form_body_is_refused_with_a_page(
    scenario: Scenario, content: bytes, kind: str, status: int, unchanged: Unchanged
) -> None:
    client = browser(scenario.anna.user, enforce_csrf_checks=True)
    client.get("/password")
    path = scenario.path(PAGES["transfer"])
    with unchanged(scenario.anna.wallet_id):
        answer = client.generic("POST", path, content, content_type=kind)
        without_checks = browser(scenario.anna.user).generic("POST", path, content, content_type=kind)
    assert answer.status_code == status
    assert 'class="status-code"' in text_of(answer)
    assert without_checks.status_code in (200, 400, 413)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("name", "A\x1bnna", "printable characters"),
        ("name", "x" * 151, "at most 150 characters"),
        ("name", "An\0na", "Null characters"),
        ("email", "anna", "valid email address"),
        ("email", "annaſ@example.com", "letters a to z"),
        ("email", '"\x01"@example.com', "letters a to z"),
        ("email", "x" * 300 + "@example.com", "at most 254 characters"),
        ("password", "short", "too short"),
        ("password", "12345678901", "entirely numeric"),
        ("password", "x" * 1025, "at most 1024 characters"),
        ("password", "an\0na" * 5, "Null characters"),
    ],
)
def test_invalid_sign_up_is_an_error_of_its_field(field: str, value: str, error: str) -> None:
    before = User.objects.count(), Wallet.objects.count()
    client = browser()
    answer = client.post("/signup", registration(**{field: value}))
    page = text_of(answer)
    assert error in page
    assert PASSWORD not in page
    assert "sessionid" not in client.cookies
    assert (User.objects.count(), Wallet.objects.count()) == before


def test_sign_up_opens_a_wallet_and_each_address_is_unique() -> None:
    client, form = browser(), registration(name="Anna Petrova")
    assert client.post("/signup", form)["Location"] == "/"
    page = text_of(client.get("/"))
    assert "Anna Petrova" in page
    assert "0.00\N{NO-BREAK SPACE}RUB" in page
    again = browser().post("/signup", form | {"email": form["email"].upper()})
    assert (again.status_code, "An account with this e-mail address exists" in text_of(again)) == (409, True)
    assert User.objects.by_email(form["email"]).count() == 1
    assert client.get("/signup")["Location"] == "/"


def test_failed_login_does_not_reveal_accounts() -> None:
    known, unknown = new_account().user.email, new_address()
    pages = [
        text_of(browser().post("/login", {"username": login, "password": "wrong"})).replace(login, "…")
        for login in (known, unknown)
    ]
    first, second = (re.sub(r'csrfmiddlewaretoken" value="[^"]*"', "", page) for page in pages)
    assert first == second
    assert "The e-mail address or the password is wrong." in first


def test_overlong_login_is_refused() -> None:
    for field in ("username", "password"):
        form = {"username": new_account().user.email, "password": PASSWORD, field: "x" * 10_000}
        client = browser()
        assert client.post("/login", form).status_code == 200
        assert "sessionid" not in client.cookies


def test_password_change_needs_the_old_password() -> None:
    user = new_account().user
    here, there = browser(user), browser(user)

    def change(old: str, new: str) -> Any:
        return here.post("/password", {"old_password": old, "new_password1": new, "new_password2": new})

    for old, new in (
        ("wrong", NEW_PASSWORD),
        (PASSWORD, "short"),
        (PASSWORD, "x" * 2000),
        (PASSWORD, user.email),
    ):
        assert change(old, new).status_code == 200
        assert browser().post("/login", {"username": user.email, "password": PASSWORD}).status_code == 302
    key = here.cookies["sessionid"].value
    assert change(PASSWORD, NEW_PASSWORD)["Location"] == "/"
    assert here.cookies["sessionid"].value != key
    assert "Your password has been changed" in text_of(here.get("/"))
    assert there.get("/password").status_code == 302
    assert browser().post("/login", {"username": user.email, "password": PASSWORD}).status_code == 200
    assert browser().post("/login", {"username": user.email, "password": NEW_PASSWORD}).status_code == 302


# --- Transfers --------------------------------------------------------------------------------------
def transfer_form(to: Person | str, **fields: str) -> dict[str, str]:
    """Return the form of a transfer as a browser sends it."""
    target = to if isinstance(to, str) else to.user.email
    return {"to": target, "amount": "10", "note": "rent", "key": str(uuid4()), "step": "review", **fields}


def fields_of(page: str) -> dict[str, str]:
    """Return the values of all inputs of the page, by name."""
    inputs = re.findall(r"<input [^>]*>", page.split("<main")[1].split("</main", maxsplit=1)[0])
    found = {}
    for tag in inputs:
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        found[attributes["name"]] = unescape(attributes.get("value", ""))
    return found


def test_review_moves_nothing_and_repeated_send_moves_once(scenario: Scenario, unchanged: Unchanged) -> None:
    client, path = browser(scenario.anna.user), scenario.path(PAGES["transfer"])
    form = fields_of(text_of(client.get(path)))
    assert form["key"]
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        review = text_of(
            client.post(path, {**form, **transfer_form(scenario.boris, key=form["key"], amount="1 0.5")})
        )
        assert "10.50\N{NO-BREAK SPACE}RUB" in review
        assert scenario.boris.user.email in review
        sent = fields_of(review) | {"step": "send"}
        assert (sent["key"], sent["to"], sent["note"]) == (form["key"], scenario.boris.user.email, "rent")
    receipts = {client.post(path, sent)["Location"] for _ in range(3)}  # a double click, a reload
    assert len(receipts) == 1
    assert "<h1>Sent</h1>" in text_of(client.get(receipts.pop()))
    assert (bank().balance(scenario.anna.wallet_id), bank().balance(scenario.boris.wallet_id)) == (
        "49.50",
        "50.50",
    )
    stored_key = f"owner:{scenario.anna.user.pk} {form['key']}"
    operation = Operation.objects.get(wallet_id=scenario.anna.wallet_id, idempotency_key=stored_key)
    assert (operation.actor, operation.description) == (f"user:{scenario.anna.user.pk}", "rent")
    Books((scenario.anna.wallet_id, scenario.boris.wallet_id)).verify()


def test_edited_form_keeps_its_values(scenario: Scenario, unchanged: Unchanged) -> None:
    form = transfer_form(scenario.boris, amount="12.34", note='to "you" & <me>')
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        page = text_of(
            browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form | {"step": "edit"})
        )
    found = fields_of(page)
    assert {name: found[name] for name in ("to", "amount", "note", "key")} == {
        name: form[name] for name in ("to", "amount", "note", "key")
    }


def test_transfer_by_wallet_number_is_accepted(scenario: Scenario) -> None:
    form = transfer_form(scenario.boris.wallet_id, step="send", amount="0.01", note="")
    assert browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form).status_code == 302
    assert bank().balance(scenario.boris.wallet_id) == "40.01"


def frozen(scenario: Scenario) -> dict[str, str]:
    bank().patch(f"/wallets/{scenario.boris.wallet_id}", {"status": "FROZEN"})
    return {}


def of_another_currency(scenario: Scenario) -> dict[str, str]:
    return {"to": new_account(currency="EUR").wallet_id}


def too_much(scenario: Scenario) -> dict[str, str]:
    return {"amount": "1000"}


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (frozen, "The recipient cannot receive this amount."),
        (of_another_currency, "The wallets have different currencies."),
        (too_much, "The amount exceeds the available balance."),
    ],
)
def test_refusal_moves_nothing_and_form_gets_a_new_key(
    scenario: Scenario, unmoved: Unchanged, prepare: Callable[[Scenario], dict[str, str]], error: str
) -> None:
    client, path = browser(scenario.anna.user), scenario.path(PAGES["transfer"])
    form = transfer_form(scenario.boris) | prepare(scenario) | {"step": "send"}
    with unmoved(scenario.anna.wallet_id, scenario.boris.wallet_id):
        answer = client.post(path, form)
        page = text_of(answer)
    assert (answer.status_code, error in page) == (409, True)
    again = fields_of(page)
    assert again["key"] != form["key"]
    assert {name: again[name] for name in ("to", "amount", "note")} == {
        name: form[name] for name in ("to", "amount", "note")
    }
    bank().patch(f"/wallets/{scenario.boris.wallet_id}", {"status": "ACTIVE"})
    corrected = {**again, "to": scenario.boris.user.email, "amount": "1", "step": "send"}
    assert client.post(path, corrected).status_code == 302
    assert bank().balance(scenario.boris.wallet_id) == "41.00"


def test_transfer_to_an_unknown_wallet_is_not_found(scenario: Scenario, unchanged: Unchanged) -> None:
    form = transfer_form(str(uuid4()), step="send")
    with unchanged(scenario.anna.wallet_id):
        answer = browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form)
    assert (answer.status_code, "This wallet does not exist." in text_of(answer)) == (404, True)


def test_used_form_with_other_content_is_refused(scenario: Scenario, unchanged: Unchanged) -> None:
    client, path = browser(scenario.anna.user), scenario.path(PAGES["transfer"])
    form = transfer_form(scenario.boris, step="send")
    assert client.post(path, form).status_code == 302
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        answer = client.post(path, form | {"amount": "11"})
    page = text_of(answer)
    assert (answer.status_code, "This form was sent before" in page) == (422, True)
    assert fields_of(page)["key"] != form["key"]


def test_form_keeps_its_key_if_the_outcome_is_unknown(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable

    client, path = browser(scenario.anna.user), scenario.path(PAGES["transfer"])
    form = transfer_form(scenario.boris, step="send")
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "submit", fail)
        answer = client.post(path, form)
    page = text_of(answer)
    assert (answer.status_code, "it takes effect once" in page) == (503, True)
    assert fields_of(page)["key"] == form["key"]
    assert client.post(path, fields_of(page) | {"step": "send"}).status_code == 302


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("key", value) for value in ("", "x", "' OR 1=1", "\0", "ы" * 36, "x" * 10_000)],
        *[
            ("to", value)
            for value in ("", "x", "\0", "%", "x" * 10_000, "annaſ@example.com", '"\x01"@example.com')
        ],
        *[("to", value) for value in ("00000000-0000-0000-0000-00000000000g", "<script>@example.com")],
        *[
            ("amount", value)
            for value in ("", "0", "-1", "1e3", "NaN", "Infinity", "1,000", "0.001", "٣", "1" * 40)
        ],
        *[
            ("amount", value)
            for value in ("1_000", "0x10", "1.", "\0", "x" * 10_000, "1000000000001", "+1", "1.2.3")
        ],
        *[("note", value) for value in ("x" * 201, "\0")],
    ],
)
@pytest.mark.parametrize("step", ["review", "send"])
def test_invalid_field_of_a_transfer_moves_nothing(
    scenario: Scenario, field: str, value: str, step: str, unchanged: Unchanged
) -> None:
    form = transfer_form(scenario.boris, step=step) | {field: value}
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        answer = browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form)
    assert answer.status_code == 200
    assert 'name="amount"' in text_of(answer)
    assert "Send this?" not in text_of(answer)


@pytest.mark.parametrize("field", ["to", "amount", "key", "step"])
def test_missing_field_of_a_transfer_moves_nothing(
    scenario: Scenario, field: str, unchanged: Unchanged
) -> None:
    form = transfer_form(scenario.boris, step="send")
    del form[field]
    with unchanged(scenario.anna.wallet_id, scenario.boris.wallet_id):
        assert browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form).status_code == 200


@pytest.mark.parametrize("spelling", [str.upper, str.lower, lambda id: id])
def test_transfer_to_the_same_wallet_is_refused(
    scenario: Scenario, spelling: Callable[[str], str], unchanged: Unchanged
) -> None:
    with unchanged(scenario.anna.wallet_id):
        for to in (scenario.anna.wallet_id, scenario.anna.user.email):
            for step in ("review", "send"):
                form = transfer_form(spelling(to), step=step)
                answer = browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form)
                assert answer.status_code == 200
                assert "You cannot send money to the same wallet." in text_of(answer)


def test_unknown_address_is_an_error_of_its_field(scenario: Scenario, unchanged: Unchanged) -> None:
    with unchanged(scenario.anna.wallet_id):
        without_target = (
            new_address(),
            new_account(verified_email="").user.email,
            new_account(currency="EUR").user.email,
            new_account(is_active=False).user.email,
        )
        for to in without_target:
            answer = browser(scenario.anna.user).post(
                scenario.path(PAGES["transfer"]), transfer_form(to, step="send")
            )
            assert "No verified account with this address has a wallet in RUB." in text_of(answer)


@pytest.mark.parametrize(
    ("amount", "balance"), [("1 000,50", "1040.50"), ("0,01", "40.01"), ("2.5", "42.50")]
)
def test_russian_amounts_are_accepted_in_russian(scenario: Scenario, amount: str, balance: str) -> None:
    bank().deposit(scenario.anna.wallet_id, 1000)
    client = browser(scenario.anna.user, headers={"Accept-Language": "ru"})
    form = transfer_form(scenario.boris, amount=amount, step="send")
    assert client.post(scenario.path(PAGES["transfer"]), form).status_code == 302
    assert bank().balance(scenario.boris.wallet_id) == balance


@pytest.mark.parametrize(
    ("amount", "moved"),
    [
        ("1,234.50", "1234.50"),
        ("1,234,567.89 RUB", "1234567.89"),
        ("1,000.00\u00a0RUB", "1000.00"),
        ("5 RUB", "5.00"),
    ],
)
def test_amount_may_be_pasted_as_the_page_shows_it(scenario: Scenario, amount: str, moved: str) -> None:
    bank().deposit(scenario.anna.wallet_id, 2_000_000)
    before = Decimal(bank().balance(scenario.boris.wallet_id))
    form = transfer_form(scenario.boris, amount=amount, step="send")
    assert browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form).status_code == 302
    assert Decimal(bank().balance(scenario.boris.wallet_id)) - before == Decimal(moved)


@pytest.mark.parametrize(
    "amount", ["1,5", "1,234", "1,234.5", "12,34.00", "1234,567.00", ",100.00", "5 EUR", "1.234,50"]
)
def test_comma_that_may_be_a_decimal_point_is_refused(
    scenario: Scenario, amount: str, unchanged: Unchanged
) -> None:
    with unchanged(scenario.anna.wallet_id):
        form = transfer_form(scenario.boris, amount=amount, step="send")
        page = browser(scenario.anna.user).post(scenario.path(PAGES["transfer"]), form)
        assert "Enter an amount in digits" in text_of(page)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Enter an amount of at most 1,000,000,000,000.00\u00a0RUB."),
        ("ru", "Сумма должна быть не больше 1\u00a0000\u00a0000\u00a0000\u00a0000,00\u00a0RUB."),
    ],
)
def test_amount_above_the_maximum_names_the_maximum(scenario: Scenario, language: str, text: str) -> None:
    client = browser(scenario.anna.user, headers={"Accept-Language": language})
    page = client.post(
        scenario.path(PAGES["transfer"]), transfer_form(scenario.boris, amount="1000000000000.01")
    )
    assert text in text_of(page)


# --- Untrusted text ---------------------------------------------------------------------------------
EVIL = "<script>alert('1')</script>\"'><img src=x onerror=alert(1)>{{ 7|add:7 }}"


def test_untrusted_text_is_escaped() -> None:
    anna = new_account("100", first_name=EVIL[:150])
    User.objects.filter(pk=anna.user.pk).update(last_name="</title>")
    boris = new_account()
    evil_wallet = new_wallet(anna.user, "1", label=EVIL, metadata={"x": EVIL})
    api = session_of(anna.user)
    sent = api.transfer(anna.wallet_id, boris.wallet_id, 1, description=EVIL).json["id"]
    api.transfer(anna.wallet_id, boris.wallet_id, 1000, description=EVIL)
    client = browser(anna.user)
    transfer = f"/wallets/{anna.wallet_id}/transfer"
    evil_form = transfer_form(EVIL, note=EVIL, amount=EVIL, step=EVIL)
    pages = [
        client.get("/"),
        client.get(f"/wallets/{evil_wallet}"),
        client.get(f"/transfers/{sent}"),
        browser(boris.user).get("/"),
        browser(boris.user).get(f"/transfers/{sent}"),
        client.post(transfer, transfer_form(boris, note=EVIL)),
        client.post(transfer, transfer_form(f'"{EVIL[:8]}"@example.com')),
        client.post(transfer, evil_form),
        client.post(transfer, transfer_form(boris, key=EVIL)),
        client.get(f"/wallets/{anna.wallet_id}", {"kind": EVIL, "since": EVIL, "until": EVIL}),
        client.get(f"/wallets/{anna.wallet_id}", {"x": EVIL}),
        client.get(f"/wallets/{anna.wallet_id}/balance", {"seen": EVIL}),
        client.get("/nope" + quote(EVIL), headers={"Accept": "text/html"}),
        browser().get("/login", {"next": EVIL}),
        browser().post("/login", {"username": EVIL, "password": EVIL, "next": EVIL}),
        browser().post("/signup", registration(name=EVIL, email=EVIL)),
        browser().get("/", headers={"Accept-Language": EVIL}),
    ]
    for page in pages:
        text = text_of(page)
        assert page.status_code < 500
        for tag in ("<script>", "<img src=x", "</title></", "{{ 14"):
            assert tag not in text
        assert "\"'>" not in text
    assert escape("<script>alert('1')", quote=True) in text_of(client.get("/"))
    assert "7|add:7" in text_of(client.get(f"/transfers/{sent}"))


def test_username_with_a_tag_is_escaped() -> None:
    email = '"<b>&' + str(uuid4()) + '"@example.com'
    client = browser(new_account(username=email, email=email, first_name="").user)
    for path in ("/", "/password"):
        page = text_of(client.get(path))
        assert "<b>" not in page
        assert escape(email) in page.replace("&#x27;", "'")


def test_texts_that_people_write_are_isolated_from_the_text_around_them() -> None:
    """U+202E would otherwise show the text after it from right to left."""
    evil = "\u202eevil"
    anna, boris = new_account("100"), new_account()
    new_wallet(anna.user, label=evil)
    User.objects.filter(pk=anna.user.pk).update(first_name=evil)
    client, path = browser(anna.user), f"/wallets/{anna.wallet_id}"
    form = transfer_form(boris, note=evil)
    review = text_of(client.post(f"{path}/transfer", form))
    sent = client.post(f"{path}/transfer", {**form, "step": "send"})
    for page in (review, text_of(client.get(sent["Location"])), text_of(client.get(path))):
        shown = re.sub(r"<input[^>]*>", "", page)
        assert shown.count(evil) >= 2
        assert shown.count(evil) == shown.count(f"<bdi>{evil}</bdi>")


def test_statement_contains_no_spreadsheet_formula() -> None:
    anna = new_account()
    bank().deposit(anna.wallet_id, 1, description="=HYPERLINK(1)")
    answer = browser(anna.user).get(f"/wallets/{anna.wallet_id}/statement.csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith("attachment; ")
    content = text_of(answer)
    assert "'=HYPERLINK(1)" in content
    assert content.startswith(
        "\ufefftime,sequence,"
    )  # programs take a file without the mark for another coding


# --- Failures ---------------------------------------------------------------------------------------
@contextmanager
def database_unavailable() -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise OperationalError("the connection is lost")

    with connection.execute_wrapper(fail):
        yield


@pytest.mark.parametrize("name", ["home", "password", "login"])
def test_unavailable_database_is_an_error_page(scenario: Scenario, name: str) -> None:
    client = browser(scenario.anna.user)
    with database_unavailable():
        answer = client.get(scenario.path(PAGES[name]))
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert "The service is unavailable." in text_of(answer)
    assert client.get("/").status_code == 200


def test_form_of_another_site_without_database_is_refused(scenario: Scenario) -> None:
    client = browser(scenario.anna.user, enforce_csrf_checks=True)
    with database_unavailable():
        answer = client.post("/logout")
    assert answer.status_code in (403, 503)
    assert client.get("/password").status_code == 200


def test_unexpected_error_is_logged_and_not_shown_on_a_page(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(transfers, "read_transfer", fail)
    with caplog.at_level(logging.ERROR):
        answer = browser(scenario.anna.user).get(scenario.path(PAGES["transfer_by_id"]))
    page = text_of(answer)
    assert (answer.status_code, "An error occurred on our side." in page) == (500, True)
    assert "secret" not in page
    assert "RuntimeError: secret" in caplog.text


# --- Parts of a page --------------------------------------------------------------------------------
def test_unchanged_balance_is_not_sent_again(scenario: Scenario) -> None:
    client, path = browser(scenario.anna.user), scenario.path(PAGES["balance"])
    seen = fields_of("<main" + text_of(client.get(path)) + "</main")["seen"]
    assert client.get(path, {"seen": seen}).status_code == 204
    bank().deposit(scenario.anna.wallet_id, 5)
    changed = client.get(path, {"seen": seen})
    assert (changed.status_code, changed["HX-Trigger"], "65.00" in text_of(changed)) == (
        200,
        "balance-changed",
        True,
    )


# --- Forgotten passwords ----------------------------------------------------------------------------
def ask_for_link(client: Client, email: str) -> Any:
    answer = client.post("/password/forgotten", {"email": email}, follow=True)
    mailed()
    return answer


def choose(client: Client, link: str, password: str = NEW_PASSWORD) -> Any:
    form = client.get(link, follow=True)
    path = form.redirect_chain[-1][0] if form.redirect_chain else link
    return client.post(path, {"new_password1": password, "new_password2": password})


@pytest.mark.usefixtures("with_mail")
def test_mailed_link_changes_password_once_and_ends_sessions() -> None:
    user = new_account().user
    other_session, client = browser(user), browser()
    page = text_of(ask_for_link(client, user.email.upper()))
    assert "a message with a link has been sent to it" in page
    [message] = mail.outbox
    assert (message.to, message.subject) == ([user.email], "A new password for your wallet")
    assert "Hello,\n" in message.body
    link = link_in(message)
    assert choose(client, link, "short").status_code == 200
    assert choose(client, link, "x" * 2000).status_code == 200
    assert choose(client, link)["Location"] == "/login"
    assert other_session.get("/password").status_code == 302
    assert browser().post("/login", {"username": user.email, "password": PASSWORD}).status_code == 200
    assert browser().post("/login", {"username": user.email, "password": NEW_PASSWORD}).status_code == 302
    for visitor in (client, browser()):
        used = visitor.get(link, follow=True)
        assert "This link is too old, or it was used before." in text_of(used)
        assert choose(visitor, link, "six red rhinoceroses").status_code in (200, 405)
    assert browser().post("/login", {"username": user.email, "password": NEW_PASSWORD}).status_code == 302


@pytest.mark.usefixtures("with_mail")
def test_password_reset_does_not_reveal_accounts() -> None:
    def page_for(email: str) -> str:
        page = text_of(ask_for_link(browser(), email))
        return re.sub(r'csrfmiddlewaretoken" value="[^"]*"', "", page)

    pages = {
        page_for(email) for email in (new_address(), new_account(is_active=False).user.email, "eve@localhost")
    }
    assert mail.outbox == []
    pages.add(page_for(new_account().user.email))
    assert len(mail.outbox) == 1
    assert len(pages) == 1


@pytest.mark.usefixtures("with_mail")
def test_mail_has_the_users_language_and_the_public_url() -> None:
    client = browser(headers={"Accept-Language": "ru"})
    ask_for_link(client, new_account().user.email)
    [message] = mail.outbox
    assert re.search("[а-я]", str(message.subject))
    assert "Здравствуйте" in message.body
    assert link_in(message)


@pytest.mark.usefixtures("with_mail")
def test_forged_host_is_not_in_a_mail(settings: LazySettings) -> None:
    """Even if any host is allowed: the token in the link gives access to the account."""
    user = new_account(first_name="https://evil.example").user
    form = {"email": user.email}
    assert browser().post("/password/forgotten", form, headers={"Host": "evil.example"}).status_code == 400
    assert mailed() == []
    settings.ALLOWED_HOSTS = ["*"]
    forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    assert browser().post("/password/forgotten", form, headers=forged).status_code == 302
    [message] = mailed()
    assert link_in(message).startswith("/password/new/")
    assert "evil.example" not in str(message.message())


@pytest.mark.usefixtures("with_mail")
@pytest.mark.parametrize("name", [EVIL, "Anna\n\nhttps://evil.example", "Bcc: eve@evil.example"])
def test_mail_does_not_contain_the_users_name(name: str) -> None:
    user = new_account(first_name=name[:150], last_name="Petrova").user
    ask_for_link(browser(), user.email)
    verification.send_link(user)
    messages = mailed()
    assert len(messages) == 2
    for message in messages:
        assert link_in(message)
        assert message.recipients() == [user.email]
        for part in (*name.split(), "Petrova"):
            assert part not in str(message.message())


@pytest.mark.usefixtures("with_mail")
@pytest.mark.parametrize(
    "link", ["x/x", "MQ/x", "%00/x", "MQ/set-password", "é/é", "OTk5OTk5OTk5OTk5OTk5OTk5/x-y"]
)
def test_invented_link_changes_nothing(link: str) -> None:
    passwords = list(User.objects.order_by("id").values_list("password", flat=True))
    client = browser()
    assert client.get(f"/password/new/{link}", follow=True).status_code in (200, 404)
    form = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert client.post(f"/password/new/{link}", form).status_code in (200, 404)
    assert list(User.objects.order_by("id").values_list("password", flat=True)) == passwords


def test_password_reset_does_not_exist_without_mail() -> None:
    for path in ("/password/forgotten", "/password/new/MQ/x", "/password/new/MQ/set-password"):
        for method in ("GET", "POST"):
            assert browser().generic(method, path).status_code == 404
    assert "/password/forgotten" not in text_of(browser().get("/login"))
    assert mail.outbox == []


def test_name_with_line_breaks_is_refused() -> None:
    answer = Api().post("/signup", registration(name="Anna,\n\nhttps://evil.example"))
    assert answer.code == "validation_error"


def test_form_size_is_limited_and_files_are_not_stored(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    def no_file(*_: Any, **__: Any) -> None:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("django.core.files.uploadedfile.TemporaryUploadedFile.__init__", no_file)
    for size, status in ((MAX_FORM_BYTES // 2, 200), (settings.MAX_BODY_BYTES * 4, 413)):
        for path in ("/login", "/admin/login/"):
            file = SimpleUploadedFile("x", b"x" * size)
            answer = browser().post(path, {"username": "a", "password": "b", "file": file})
            assert answer.status_code == status
            assert "<h1>" in text_of(answer) or "<form" in text_of(answer)
