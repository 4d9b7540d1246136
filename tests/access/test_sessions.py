"""The API with a browser's session: CSRF protection, and the permissions of users and operators."""

import socket
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice

from tests.conftest import Unchanged, running_service
from tests.support import people
from tests.support.client import Answer, Api, InProcess
from tests.support.keys import PASSWORD, new_key, new_operator, session_of
from tests.support.people import (
    MODEL_BACKEND,
    Person,
    bank,
    new_account,
    new_address,
    new_wallet,
    registration,
    session_key,
    with_session,
)
from wallets.access.rights import OPERATOR_SCOPES, READ
from wallets.models import InboxEntry, Operation, User, Wallet

pytestmark = pytest.mark.usefixtures("quick_hashing")

ALL_PERMISSIONS = [name for names in OPERATOR_SCOPES for name in names]


@pytest.fixture(autouse=True)
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


class Browser:
    """A logged-in browser; CSRF is checked as for a real one."""

    def __init__(self, user: User, **options: Any) -> None:
        sender = InProcess(enforce_csrf_checks=True, **options)
        sender.client.force_login(user, backend=MODEL_BACKEND)
        sender.client.get("/password")  # a page with a form sets the token
        self.api = Api(sender)
        self.token = sender.client.cookies["csrftoken"].value

    def transfer(self, source: Person, target: Person, **headers: str) -> Answer:
        body = {"sourceWalletId": source.wallet_id, "targetWalletId": target.wallet_id, "amount": 1}
        return self.api.post("/transfers", body, **headers)


# --- Requests that another site's page may have sent ------------------------------------------------
def test_session_with_its_csrf_token_may_write() -> None:
    anna, boris = new_account("5"), new_account()
    browser = Browser(anna.user)
    assert browser.transfer(anna, boris, X_CSRFToken=browser.token).status == 201
    assert bank().balance(boris.wallet_id) == "1.00"
    operator = Browser(new_operator(*ALL_PERMISSIONS))
    path = f"/wallets/{anna.wallet_id}"
    assert operator.api.patch(path, {"label": "x"}, X_CSRFToken=operator.token).status == 200
    assert browser.api.post("/logout", {}, X_CSRFToken=browser.token).status == 204


def test_wrong_csrf_token_or_origin_is_refused(unchanged: Unchanged) -> None:
    anna, boris = new_account("5"), new_account()
    browser = Browser(anna.user)
    with unchanged(anna.wallet_id, boris.wallet_id):
        for headers in (
            {},
            {"X_CSRFToken": ""},
            {"X_CSRFToken": "x"},
            {"X_CSRFToken": "x" * 32},
            {"X_CSRFToken": "ы" * 32},
            {"X_CSRFToken": browser.token[::-1]},
            {"X_CSRFToken": browser.token, "Origin": "https://evil.example"},
            {"X_CSRFToken": browser.token, "Origin": "null"},
            {"X_CSRFToken": browser.token, "Cookie": f"sessionid={session_key(anna.user)}"},
            {"X_CSRFToken": "y" * 32, "Cookie": f"sessionid={session_key(anna.user)}; csrftoken={'y' * 31}"},
        ):
            answer = browser.transfer(anna, boris, **headers)
            assert (answer.status, answer.code) == (403, "forbidden"), headers


def test_session_without_its_csrf_token_changes_nothing(unchanged: Unchanged) -> None:
    anna = new_account("5")
    hold_id = bank().hold(anna.wallet_id, 1).json["id"]
    operator = Browser(new_operator(*ALL_PERMISSIONS)).api
    with unchanged(anna.wallet_id):
        for answer in (
            operator.patch(f"/wallets/{anna.wallet_id}", {"label": "x"}),
            operator.deposit(anna.wallet_id, 1),
            operator.hold(anna.wallet_id, 1),
            operator.bulk({"walletId": anna.wallet_id, "operationType": "DEPOSIT", "amount": 1}),
            operator.post(f"/holds/{hold_id}/void", None),  # a form of another site could send this
            operator.send("POST", f"/holds/{hold_id}/capture", Content_Type="text/plain"),
            operator.post("/logout", None),
        ):
            assert (answer.status, answer.code) == (403, "forbidden")
    assert operator.get("/me").status == 200


def test_form_of_another_site_cannot_log_in() -> None:
    """A form cannot send a JSON content type: a browser would ask the service first (CORS preflight)."""
    person = new_account()
    sender = InProcess(enforce_csrf_checks=True)
    content = f'{{"email": "{person.user.email}", "password": "{PASSWORD}", "x": "="}}'.encode()
    for path in ("/api/v1/login", "/api/v1/signup"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = sender.send("POST", path, content, {"Content-Type": kind})
            assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert not sender.client.cookies


def test_malformed_form_body_is_a_problem(unchanged: Unchanged) -> None:
    anna = new_account("5")
    browser = Browser(anna.user)
    sender = browser.api.sender
    with unchanged(anna.wallet_id):
        for content, kind, code in (
            (b"garbage", "multipart/form-data", "bad_request"),
            (b"garbage", "multipart/form-data; boundary=\xff", "bad_request"),
            (b"x=" + b"1" * 2_000_000, "application/x-www-form-urlencoded", "payload_too_large"),
            (
                b"&".join(b"%d=1" % at for at in range(2000)),
                "application/x-www-form-urlencoded",
                "bad_request",
            ),
        ):
            answer = sender.send("POST", "/api/v1/transfers", content, {"Content-Type": kind})
            assert answer.code == code


def test_reading_needs_no_csrf_token() -> None:
    anna = new_account("5")
    api = Browser(anna.user).api
    for path in ("/me", "/me/wallet", "/wallets", f"/wallets/{anna.wallet_id}"):
        assert api.get(path, Origin="https://evil.example").status == 200
    assert api.send("HEAD", "/wallets").status == 200


# --- A key and a cookie together --------------------------------------------------------------------
def test_key_takes_precedence_over_the_session(unchanged: Unchanged) -> None:
    anna, boris = new_account("5"), new_account()
    browser = Browser(anna.user)
    reader = f"Bearer {new_key(READ)}"
    listed = {
        item["id"] for item in browser.api.get("/wallets?limit=500", Authorization=reader).json["items"]
    }
    assert {anna.wallet_id, boris.wallet_id} <= listed
    with unchanged(anna.wallet_id, boris.wallet_id):
        assert browser.transfer(anna, boris, Authorization=reader).code == "forbidden"
        with_token = browser.transfer(anna, boris, Authorization=reader, X_CSRFToken=browser.token)
        assert with_token.code == "forbidden"
        assert browser.api.get("/me", Authorization=reader).code == "forbidden"
        for header in ("Bearer wk_abcd1234_" + "x" * 43, "Bearer x", "Basic YTpi"):
            answer = browser.transfer(anna, boris, Authorization=header, X_CSRFToken=browser.token)
            assert answer.code == "unauthorized"
    # A key needs no CSRF token: a page of another site has no key.
    assert browser.transfer(anna, boris, Authorization=f"Bearer {bank().key}").status == 201
    assert Operation.objects.get(wallet_id=boris.wallet_id).actor.startswith("key:")


def test_operation_of_a_session_records_its_user() -> None:
    anna, boris = new_account("5"), new_account()
    session_of(anna.user).transfer(anna.wallet_id, boris.wallet_id, 1)
    operator = new_operator(*ALL_PERMISSIONS)
    session_of(operator).deposit(boris.wallet_id, 2)
    actors = Operation.objects.filter(wallet_id=boris.wallet_id).order_by("sequence")
    assert [operation.actor for operation in actors] == [
        f"user:{anna.user.pk}",
        f"operator:{operator.username}",
    ]


# --- Invalid sessions -------------------------------------------------------------------------------
def deleted(user: User) -> str:
    key = session_key(user)
    Session.objects.filter(session_key=key).delete()
    return key


def expired(user: User) -> str:
    key = session_key(user)
    Session.objects.filter(session_key=key).update(expire_date=timezone.now() - timedelta(seconds=1))
    return key


def forged(user: User) -> str:
    """Write access to the session table alone is not enough to sign a session."""
    key = session_key(user)
    Session.objects.filter(session_key=key).update(session_data="eyJfYXV0aF91c2VyX2lkIjoiMSJ9:1:x")
    return key


def of_changed_password(user: User) -> str:
    key = session_key(user)
    User.objects.filter(pk=user.pk).update(password="another")  # noqa: S106
    return key


def upper_case(user: User) -> str:
    return session_key(user).upper()


INVALID_COOKIES: list[Any] = [
    *(deleted, expired, forged, of_changed_password, upper_case),
    *("", "x", "x" * 32, "x" * 5000, "'; --", r'"\000\000\000\000\000\000\000\000"', r'"\377\376"', "ÿ" * 32),
]


@pytest.mark.parametrize("cookie", INVALID_COOKIES)
def test_invalid_session_cookie_is_ignored(settings: LazySettings, cookie: Any, unchanged: Unchanged) -> None:
    anna = new_account("5")
    key = cookie if isinstance(cookie, str) else cookie(anna.user)
    given = {"Cookie": f"sessionid={key}"}
    body = {"sourceWalletId": anna.wallet_id, "targetWalletId": new_account().wallet_id, "amount": 1}
    with unchanged(anna.wallet_id):
        for answer in (
            Api().get("/me", **given),
            Api().get(f"/wallets/{anna.wallet_id}", **given),
            Api().post("/transfers", body, **given),
            Api().post("/logout", {}, **given),
        ):
            assert (answer.status, answer.code) == (401, "unauthorized")
    settings.API_ACCESS = "open"
    assert Api().get(f"/wallets/{anna.wallet_id}", **given).status == 200
    for answer in (Api().get("/me", **given), Api().get("/me/wallet"), Api().post("/logout", {}, **given)):
        assert (answer.status, answer.code) == (401, "unauthorized")
    assert Api(key=new_key(READ)).get("/me", **given).code == "forbidden"  # no other key helps
    page = InProcess().send("GET", "/", headers=given)
    assert (page.status, b"/signup" in page.content) == (200, True)
    assert InProcess().send("GET", "/password", headers=given).headers["location"].startswith("/login")


@pytest.mark.parametrize("name", ["csrftoken", "messages", "django_language", "x"])
@pytest.mark.parametrize("value", [r'"\000\000"', r'"\377"', "x" * 5000, "ÿ", "a b;=;", "'; --", '"'])
def test_malformed_cookies_cause_no_error(name: str, value: str) -> None:
    given = {"Cookie": f"{name}={value}"}
    for path in ("/", "/login", "/signup", "/api/v1/me", "/admin/login/"):
        assert InProcess().send("GET", path, headers=given).status in (200, 401)


def test_session_decides_permissions_in_an_open_api(settings: LazySettings, unchanged: Unchanged) -> None:
    settings.API_ACCESS = "open"
    anna, boris = new_account("5"), new_account("5")
    api = session_of(anna.user)
    with unchanged(boris.wallet_id):
        assert api.get(f"/wallets/{boris.wallet_id}").code == "wallet_not_found"
        assert api.deposit(boris.wallet_id, 1).code == "forbidden"
    assert [item["id"] for item in api.get("/wallets").json["items"]] == [anna.wallet_id]


# --- Limits of a user's permissions -----------------------------------------------------------------
def test_user_may_not_deposit_hold_open_or_freeze(unchanged: Unchanged) -> None:
    anna, boris = new_account("5"), new_account()
    deposit_id = Operation.objects.get(wallet_id=anna.wallet_id).id
    hold_id = bank().hold(anna.wallet_id, 1).json["id"]
    api = session_of(anna.user)
    wallets = Wallet.objects.count()
    deposit = {"walletId": anna.wallet_id, "operationType": "DEPOSIT", "amount": 1}
    transfer = {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": 1}
    with unchanged(anna.wallet_id, boris.wallet_id):
        for answer in (
            api.deposit(anna.wallet_id, 1),
            api.post("/wallet", deposit),
            api.withdraw(anna.wallet_id, 1),
            api.hold(anna.wallet_id, 1),
            api.capture(hold_id),
            api.void(hold_id),
            api.reverse(str(deposit_id)),
            api.bulk(transfer, deposit),
            api.bulk(transfer, deposit, atomic=True),
            api.patch(f"/wallets/{anna.wallet_id}", {"status": "FROZEN"}),
            api.patch(f"/wallets/{anna.wallet_id}", {"label": "mine"}),
            api.post("/wallets", {}),
            api.post("/wallet/create", {"overdraftLimit": "1000000"}),
        ):
            assert (answer.status, answer.code) == (403, "forbidden")
    assert Wallet.objects.count() == wallets


def test_foreign_ids_find_and_move_nothing(unchanged: Unchanged) -> None:
    anna, boris, carla = new_account("5"), new_account("5"), new_account()
    transfer_id = bank().transfer(boris.wallet_id, carla.wallet_id, 1).json["id"]
    hold_id = bank().hold(boris.wallet_id, 1).json["id"]
    api = session_of(anna.user)
    bulk = {"sourceWalletId": boris.wallet_id, "targetWalletId": anna.wallet_id, "amount": 1}
    with unchanged(anna.wallet_id, boris.wallet_id, carla.wallet_id):
        for answer, code in (
            (api.transfer(boris.wallet_id, anna.wallet_id, 1), "wallet_not_found"),
            (api.bulk(bulk, atomic=True), "wallet_not_found"),
            (api.get(f"/wallets/{boris.wallet_id}"), "wallet_not_found"),
            (api.get(f"/wallets/{boris.wallet_id}/operations"), "wallet_not_found"),
            (api.get(f"/wallets/{boris.wallet_id}/statement"), "wallet_not_found"),
            (api.get(f"/wallets/{boris.wallet_id}/balance"), "wallet_not_found"),
            (api.get(f"/wallets/{boris.wallet_id}/holds"), "wallet_not_found"),
            (api.get(f"/transfers/{transfer_id}"), "transfer_not_found"),
            (api.get(f"/operations/{transfer_id}"), "operation_not_found"),
            (api.get(f"/holds/{hold_id}"), "hold_not_found"),
            (api.reverse(transfer_id), "operation_not_found"),
            (api.get(f"/wallets/{uuid4()}"), "wallet_not_found"),
        ):
            assert answer.code == code
    assert api.bulk(bulk).json["results"][0]["problem"]["code"] == "wallet_not_found"
    assert Wallet.objects.get(id=boris.wallet_id).balance == 4


def test_user_transfers_asynchronously_in_bulk_and_reverses(unchanged: Unchanged) -> None:
    anna, boris = new_account("5"), new_account()
    api = session_of(anna.user)
    body = {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": 1}
    accepted = api.post("/transfers", body, Prefer="respond-async")
    assert accepted.status == 202
    assert InboxEntry.objects.get(id=accepted.json["id"]).actor == f"user:{anna.user.pk}"
    assert api.bulk(body).json["results"][0]["status"] == 201
    received = session_of(boris.user).history(boris.wallet_id)[0]["id"]
    with unchanged(anna.wallet_id, boris.wallet_id):
        assert api.reverse(received).code == "operation_not_found"
    assert session_of(boris.user).reverse(received).status == 201
    assert Wallet.objects.get(id=anna.wallet_id).balance == 5


# --- Operators --------------------------------------------------------------------------------------
def otp_session(user: User) -> Api:
    """Return a client whose session has passed the second factor."""
    device = TOTPDevice.objects.create(user=user, name="app")
    api = session_of(user)
    assert isinstance(api.sender, InProcess)
    session = api.sender.client.session
    session[DEVICE_ID_SESSION_KEY] = device.persistent_id
    session.save()
    return api


def test_operator_without_a_required_second_factor_has_no_rights(
    settings: LazySettings, unchanged: Unchanged
) -> None:
    operator, anna = new_operator(*ALL_PERMISSIONS, is_superuser=True), new_account("5")
    api = session_of(operator)
    assert api.get(f"/wallets/{anna.wallet_id}").status == 200
    settings.ADMIN_OTP = True
    own = new_wallet(operator, "5")
    with unchanged(anna.wallet_id, own):
        for wallet_id in (anna.wallet_id, own):
            assert api.get(f"/wallets/{wallet_id}").code == "forbidden"
            assert api.deposit(wallet_id, 1).code == "forbidden"
            assert api.patch(f"/wallets/{wallet_id}", {"status": "FROZEN"}).code == "forbidden"
            assert api.transfer(wallet_id, new_account().wallet_id, 1).code == "forbidden"
        assert api.get("/wallets").code == "forbidden"
    assert api.get("/me").json["email"] == operator.email
    assert otp_session(operator).deposit(anna.wallet_id, 1).status == 201


def test_enrolled_second_factor_is_required_even_if_optional(
    unchanged: Unchanged,
) -> None:
    operator, anna = new_operator(*ALL_PERMISSIONS), new_account("5")
    verified = otp_session(operator)
    with unchanged(anna.wallet_id):
        assert session_of(operator).deposit(anna.wallet_id, 1).code == "forbidden"
        assert session_of(operator).get(f"/wallets/{anna.wallet_id}").code == "forbidden"
        assert isinstance(unverified := session_of(operator).sender, InProcess)
        for path in ("/", "/password"):
            assert unverified.client.get(path).headers["Location"] == "/admin/"
    assert verified.deposit(anna.wallet_id, 1).status == 201


def test_second_factor_of_another_user_does_not_count(settings: LazySettings, unchanged: Unchanged) -> None:
    settings.ADMIN_OTP = True
    operator, anna = new_operator(*ALL_PERMISSIONS), new_account("5")
    device = TOTPDevice.objects.create(user=new_operator(), name="app")
    api = session_of(operator)
    assert isinstance(api.sender, InProcess)
    session = api.sender.client.session
    session[DEVICE_ID_SESSION_KEY] = device.persistent_id
    session.save()
    with unchanged(anna.wallet_id):
        assert api.deposit(anna.wallet_id, 1).code == "forbidden"


def test_second_factor_does_not_make_an_operator(settings: LazySettings, unchanged: Unchanged) -> None:
    settings.ADMIN_OTP = True
    anna, boris = new_account("5"), new_account("5")
    api = otp_session(anna.user)
    with unchanged(anna.wallet_id, boris.wallet_id):
        assert api.deposit(anna.wallet_id, 1).code == "forbidden"
        assert api.get(f"/wallets/{boris.wallet_id}").code == "wallet_not_found"


def test_revoked_permission_applies_from_the_next_request(unchanged: Unchanged) -> None:
    operator, anna = new_operator(*ALL_PERMISSIONS), new_account("5")
    api = session_of(operator)
    assert api.deposit(anna.wallet_id, 1).status == 201
    operator.user_permissions.clear()
    with unchanged(anna.wallet_id):
        assert api.deposit(anna.wallet_id, 1).code == "forbidden"
    operator.is_staff = False
    operator.save()
    assert api.get(f"/wallets/{anna.wallet_id}").code == "wallet_not_found"


def test_permissions_without_staff_status_have_no_effect(unchanged: Unchanged) -> None:
    person, anna = new_operator(*ALL_PERMISSIONS, is_superuser=True), new_account("5")
    User.objects.filter(pk=person.pk).update(is_staff=False, email=new_address())
    api = session_of(person)
    with unchanged(anna.wallet_id):
        assert api.deposit(anna.wallet_id, 1).code == "forbidden"
        assert api.get(f"/wallets/{anna.wallet_id}").code == "wallet_not_found"


def test_session_of_the_pages_works_for_the_api() -> None:
    person = new_account("5")
    sender = InProcess()
    sender.client.post("/login", {"username": person.user.email, "password": PASSWORD})
    assert Api(sender).get("/me").json["walletId"] == person.wallet_id
    key = sender.client.cookies["sessionid"].value
    sender.client.post("/logout")
    assert with_session(key).get("/me").code == "unauthorized"


# --- Database connections ---------------------------------------------------------------------------
@pytest.mark.slow
def test_slow_body_occupies_no_database_connection() -> None:
    settings = {"WORKERS": "1", "DATABASE_POOL_MIN": "1", "DATABASE_POOL_MAX": "1", "API_ACCESS": "key"}
    with running_service(**settings) as address, ExitStack() as stack:
        anna, boris = people.Browser(address), people.Browser(address)
        for connection in (anna.connection, boris.connection):
            stack.callback(connection.close)
        for person in (anna, boris):
            assert Api(person).post("/signup", registration()).status == 201
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in anna.cookies.items())
        head = (
            "POST /api/v1/transfers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Cookie: {cookies}\r\nX-CSRFToken: {anna.cookies['csrftoken'].value}\r\n"
            "Content-Length: 1000\r\n\r\n{"
        )
        host, _, port = address.removeprefix("http://").partition(":")
        with closing(socket.create_connection((host, int(port)))) as slow:
            slow.sendall(head.encode())
            for _ in range(3):  # the first may arrive before the slow one
                assert Api(boris).get("/me/wallet").status == 200
