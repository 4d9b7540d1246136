"""Login to the admin: with a password, and with a second factor if the operator has one or needs one."""

import re
import time
from base64 import b32decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import LazySettings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from tests.admin.test_wallets_and_operations import (
    adjustment,
    logged_in,
    new_user,
    new_wallet,
    page,
    shown,
    text_of,
)
from tests.conftest import Unchanged
from tests.management.test_commands import run
from tests.support.cluster import cluster
from wallets.models import User
from walletsvc.environment import Rate

PASSWORD = "nine green elephants"
RECOVERY = "abcd2345"
LOGIN = "/admin/login/"
HOME = "/admin/second-factor/"
CODE = f"{HOME}code/"
ENROL = f"{HOME}enrol/"
CODES = f"{HOME}codes/"
RENEW = f"{HOME}renew/"
REMOVE = f"{HOME}remove/"


pytestmark = pytest.mark.usefixtures("quick_hashing")


@pytest.fixture(autouse=True)
def _without_rate_limit(settings: LazySettings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": None}


@pytest.fixture(params=["on", "off"])
def required_or_optional(settings: LazySettings, request: pytest.FixtureRequest) -> None:
    settings.ADMIN_OTP = request.param == "on"


@pytest.fixture
def required(settings: LazySettings) -> None:
    settings.ADMIN_OTP = True


@pytest.fixture
def short_deadline(settings: LazySettings) -> None:
    """Let the next code be accepted immediately after a wrong one."""
    settings.OTP_TOTP_THROTTLE_FACTOR = settings.OTP_STATIC_THROTTLE_FACTOR = 0


def new_operator(*permissions: str, **fields: Any) -> User:
    return new_user(*permissions, password=PASSWORD, **fields)


def enrolled(*permissions: str, **fields: Any) -> User:
    user = new_operator(*permissions, **fields)
    TOTPDevice.objects.create(user=user, name="app")
    device = StaticDevice.objects.create(user=user, name="recovery codes")
    StaticToken.objects.create(device=device, token=RECOVERY)
    return user


def device_of(user: User) -> Any:
    return TOTPDevice.objects.get(user=user, confirmed=True)


def code_of(key: str, periods_later: int = 0) -> str:
    """Return the code that an app with this key shows `periods_later` periods of 30 seconds from now."""
    totp = TOTP(bytes.fromhex(key))
    totp.time = time.time() + 30 * periods_later
    return f"{totp.token():06d}"


def right_code(user: User, periods_later: int = 0) -> str:
    return code_of(device_of(user).key, periods_later)


def wrong_code(user: User) -> str:
    right = {right_code(user, later) for later in range(-2, 4)}
    return next(code for code in ("000000", "111111", *map(str, range(222222, 222230))) if code not in right)


def send_login(client: Client, user: User, password: str = PASSWORD, at: str = LOGIN) -> Any:
    return client.post(at, {"username": user.username, "password": password})


def with_password(user: User, **options: Any) -> Client:
    """Return a client that has sent the password with the login form."""
    client = Client(**options)
    assert send_login(client, user).status_code == 302
    return client


def verified(user: User) -> Client:
    client = with_password(user)
    assert client.post(CODE, {"code": right_code(user)}).status_code == 302
    return client


def may_enter(client: Client) -> bool:
    return bool(client.get("/admin/").status_code == 200)


def errors_of(response: Any) -> str:
    return " ".join(error for errors in response.context["form"].errors.values() for error in errors)


def key_of_page(client: Client, address: str = ENROL) -> str:
    """Return the secret that the page shows for manual entry."""
    found = re.search(r"<code[^>]*>([A-Z2-7 ]+)</code>", shown(client, address))
    assert found
    return b32decode(found[1].replace(" ", "")).hex()


def codes_of_page(html: str) -> list[str]:
    return re.findall(r"<li>([a-z2-7]{8})</li>", html)


def devices_of(user: User) -> list[Any]:
    return [
        *TOTPDevice.objects.filter(user=user).values_list("key", "confirmed"),
        *StaticToken.objects.filter(device__user=user).order_by("id").values_list("token", flat=True),
    ]


def log_of(user: User) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(user.pk), content_type__model="user").order_by("id")
    return list(entries.values_list("change_message", flat=True))


# --- Password ---------------------------------------------------------------------------------------
def test_password_is_enough_without_a_second_factor() -> None:
    client = Client()
    response = client.get("/admin/wallets/", follow=True)
    at = f"{LOGIN}?next=/admin/wallets/"
    assert response.redirect_chain == [(at, 302)]
    user = new_operator("view_wallet")
    assert send_login(client, user, at=at)["Location"] == "/admin/wallets/"
    assert client.get("/admin/wallets/").status_code == 200


def test_username_is_case_insensitive() -> None:
    user = new_operator()
    client = Client()
    assert client.post(LOGIN, {"username": user.username.upper(), "password": PASSWORD}).status_code == 302
    assert may_enter(client)


def test_login_without_next_page_redirects_to_the_admin() -> None:
    client = Client()
    action = re.search(r'<form action="([^"]+)"', shown(client, LOGIN))
    assert action
    assert send_login(client, new_operator(), at=unescape(action[1]))["Location"] == "/admin/"


@pytest.mark.parametrize("password", ["wrong", "", PASSWORD + " ", PASSWORD.upper()])
def test_wrong_password_is_refused(password: str) -> None:
    client = Client()
    response = send_login(client, new_operator(), password)
    assert response.status_code == 200
    assert response.context["form"].errors
    assert not may_enter(client)


def test_login_of_non_operators_and_inactive_users_is_refused() -> None:
    for fields in ({"is_staff": False}, {"is_active": False}):
        client = Client()
        assert send_login(client, new_operator(**fields)).status_code == 200
        assert not may_enter(client)


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "x" * 10_000, "'; --", "٣" * 300, "\ud7ff\U0010ffff"])
@pytest.mark.parametrize("field", ["username", "password"])
def test_invalid_login_text_is_a_form_error(field: str, text: str) -> None:
    response = Client().post(LOGIN, {"username": f"unknown-{uuid4()}", "password": "x", field: text})
    assert response.status_code == 200
    assert response.context["form"].errors


def test_too_long_or_invalid_login_text_is_a_field_error() -> None:
    for field, most in (("username", 254), ("password", 1024)):
        for text in ("x" * (most + 1), "\x00"):
            response = Client().post(LOGIN, {"username": "unknown", "password": "x", field: text})
            assert response.context["form"].errors.keys() == {field}


def test_wrong_passwords_lock_the_account_for_their_address() -> None:
    user = new_operator()
    client = Client(REMOTE_ADDR="198.51.100.7")
    message = "Too many wrong passwords for this account; try again later."
    for _ in range(4):
        assert message not in text_of(send_login(client, user, "wrong"))
    for password in ("wrong", PASSWORD):
        response = send_login(client, user, password)
        assert response.status_code == 429
        assert response["Retry-After"] == "900"
        assert message in text_of(response)
    assert not may_enter(client)
    assert may_enter(with_password(user, REMOTE_ADDR="198.51.100.8"))


def test_each_submitted_form_counts_for_the_rate_limit(settings: LazySettings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": Rate(3, 3600)}
    user = enrolled()
    client = Client(REMOTE_ADDR=f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1")
    assert client.post(LOGIN, {}).status_code == 200  # the first
    assert send_login(client, user).status_code == 302  # the second
    assert client.get(CODE).status_code == 200
    assert client.post(CODE, {"code": "x"}).status_code == 200  # the third
    for response in (client.post(CODE, {"code": right_code(user)}), send_login(client, user)):
        assert response.status_code == 429
        assert int(response["Retry-After"]) > 0
        assert "Wait a little and try again." in text_of(response)
    assert not may_enter(client)
    assert device_of(user).last_t == -1


@pytest.mark.parametrize(
    "target", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_redirect_stays_on_this_site(target: str) -> None:
    user = enrolled()
    client = Client()
    action = f"{LOGIN}?next={target}"
    assert send_login(client, user, at=action)["Location"] == "/"
    assert client.get(action)["Location"] == f"{CODE}?next=%2Fadmin%2F"
    assert client.post(f"{CODE}?next={target}", {"code": right_code(user)})["Location"] == "/admin/"
    assert client.get(f"{CODE}?next={target}")["Location"] == "/admin/"


# --- Code -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("required_or_optional")
def test_second_factor_is_required_and_redirects_to_the_next_page() -> None:
    user = enrolled("view_wallet")
    client = Client()
    response = client.post(
        f"{LOGIN}?next=/admin/wallets/wallet/", {"username": user.username, "password": PASSWORD}, follow=True
    )
    address, _ = response.redirect_chain[-1]
    assert address == f"{CODE}?next=%2Fadmin%2Fwallets%2Fwallet%2F"
    assert not may_enter(client)
    response = client.post(address, {"code": right_code(user)})
    assert response["Location"] == "/admin/wallets/wallet/"
    assert client.get("/admin/wallets/wallet/").status_code == 200
    assert device_of(user).last_used_at is not None


@pytest.mark.usefixtures("required_or_optional")
def test_recovery_code_is_accepted_once_in_any_format() -> None:
    user = enrolled()
    client = with_password(user)
    assert client.post(CODE, {"code": " ABCD 2345 "}).status_code == 302
    assert may_enter(client)
    again = with_password(user)
    assert "wrong" in errors_of(again.post(CODE, {"code": RECOVERY}))
    assert not may_enter(again)


def addresses(patterns: Any, start: str = "/admin/") -> Iterator[str]:
    for pattern in patterns:
        text = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, start + text)
        elif isinstance(pattern, URLPattern) and not text.startswith("("):
            text = re.sub(r"<[^>]*>", "1", re.sub(r"^\^\(\?P<app_label>.*", "wallets/", text))
            yield start + text


OPEN = {LOGIN, "/admin/logout/", CODE, ENROL, CODES, RENEW, REMOVE}


@pytest.mark.parametrize(("otp", "make"), [(True, enrolled), (True, new_operator), (False, enrolled)])
def test_password_alone_opens_no_page(settings: LazySettings, otp: bool, make: Callable[..., User]) -> None:
    settings.ADMIN_OTP = otp
    client = with_password(make(is_superuser=True))
    guarded = [address for address in addresses(admin.site.urls[0]) if address not in OPEN]
    assert len(guarded) > 60
    for address in guarded:
        for send in (client.get, client.post):
            response = send(address)
            assert response.status_code == 302, address
            assert response["Location"].startswith((LOGIN, "/admin/wallets")), address
    assert not may_enter(client)


@pytest.mark.usefixtures("required")
def test_password_alone_moves_no_money(unchanged: Unchanged) -> None:
    wallet = new_wallet("10")
    for user in (enrolled(is_superuser=True), new_operator(is_superuser=True)):
        client = with_password(user)
        with unchanged(str(wallet.id)):
            for action in ("adjust", "freeze"):
                assert client.post(page(wallet, action), adjustment())["Location"].startswith(LOGIN)


def test_second_factor_pages_require_the_password() -> None:
    for client in (Client(), logged_in(new_user(is_staff=False))):
        for address in (CODE, ENROL, CODES, RENEW, REMOVE):
            for send in (client.get, client.post):
                assert send(address)["Location"].startswith(LOGIN)


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize(
    "code",
    [
        "",
        " ",
        "\x00",
        "1",
        "1234567",
        "x" * 10_000,
        "-12345",
        "+12345",
        "1e5",
        "12345\x00",
        "٣٣٣٣٣٣",
        "%",
        "None",
    ],
)
def test_malformed_code_is_refused(code: str) -> None:
    user = enrolled()
    client = with_password(user)
    response = client.post(CODE, {"code": code})
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == {"code"}
    assert not may_enter(client)


def test_code_of_another_operators_device_is_refused() -> None:
    user, other = enrolled(), enrolled()
    StaticToken.objects.filter(device__user=other).update(token=RECOVERY[::-1])
    client = with_password(user)
    theirs = device_of(other).persistent_id
    for code in (right_code(other), RECOVERY[::-1]):
        response = client.post(CODE, {"code": code, "otp_device": theirs, "device": theirs, "user": other.pk})
        assert "wrong" in errors_of(response)
    assert not may_enter(client)
    assert StaticToken.objects.filter(device__user=other).count() == 1


def test_session_is_not_verified_by_another_operators_device() -> None:
    user, other = enrolled(), enrolled()
    client = with_password(user)
    session = client.session
    session["otp_device_id"] = device_of(other).persistent_id
    session.save()
    assert not may_enter(client)


@pytest.mark.usefixtures("short_deadline")
def test_code_is_accepted_once() -> None:
    user = enrolled()
    code = right_code(user)
    first, second = with_password(user), with_password(user)
    assert first.post(CODE, {"code": code}).status_code == 302
    assert "was used before" in errors_of(second.post(CODE, {"code": code}))
    assert not may_enter(second)
    assert second.post(CODE, {"code": right_code(user, 1)}).status_code == 302
    assert may_enter(second)


def send_concurrently(lock: str, user: User, *sent: tuple[Client, str, str]) -> list[int]:
    """Send the forms concurrently, release the lock when all wait for it, and return the sorted statuses."""

    def send(client: Client, address: str, code: str) -> int:
        try:
            return int(client.post(address, {"code": code}).status_code)
        finally:
            connection.close()

    with psycopg.connect(cluster.url()) as holder, ThreadPoolExecutor(len(sent)) as threads:
        holder.execute(f"SELECT FROM {lock} FOR NO KEY UPDATE", [user.pk])
        responses = [threads.submit(send, *form) for form in sent]
        deadline = time.monotonic() + 5
        while waiting(holder) < len(sent) and time.monotonic() < deadline:
            time.sleep(0.01)
        holder.commit()
        return sorted(response.result() for response in responses)


def waiting(database: psycopg.Connection[Any]) -> int:
    (count,) = database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() or (0,)
    return int(count)


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize(
    ("lock", "make"),
    [
        ("otp_totp_totpdevice WHERE user_id = %s", right_code),
        ("otp_static_staticdevice WHERE user_id = %s", lambda _: RECOVERY),
    ],
)
def test_concurrent_uses_of_a_code_are_accepted_once(lock: str, make: Callable[[User], str]) -> None:
    user = enrolled()
    clients = [with_password(user) for _ in range(2)]
    code = make(user)
    assert send_concurrently(lock, user, *((client, CODE, code) for client in clients)) == [200, 302]
    assert sum(map(may_enter, clients)) == 1


def test_wrong_code_delays_only_its_own_device() -> None:
    user = enrolled()
    client = with_password(user)
    assert "wrong" in errors_of(client.post(CODE, {"code": wrong_code(user)}))
    TOTPDevice.objects.filter(user=user).update(throttling_failure_count=10)
    assert re.search(r"Try again in 5[01]\d s", errors_of(client.post(CODE, {"code": right_code(user)})))
    assert device_of(user).throttling_failure_count == 10
    assert not may_enter(client)
    assert client.post(CODE, {"code": RECOVERY}).status_code == 302
    assert may_enter(client)


def test_code_ends_the_session_that_had_only_the_password() -> None:
    """An attacker who planted or copied its cookie gets no access."""
    user = enrolled()
    client = with_password(user)
    thief = Client()
    thief.cookies["sessionid"] = client.cookies["sessionid"].value
    assert client.post(CODE, {"code": right_code(user)}).status_code == 302
    assert may_enter(client)
    assert not may_enter(thief)
    assert thief.get(CODE)["Location"].startswith(LOGIN)


def test_operator_can_log_out_on_the_code_page() -> None:
    client = with_password(enrolled())
    assert 'action="/admin/logout/"' in shown(client, CODE)
    assert client.post("/admin/logout/")["Location"] == LOGIN
    assert client.get(CODE)["Location"].startswith(LOGIN)


@pytest.mark.parametrize("address", [LOGIN, CODE, ENROL, RENEW, REMOVE, "/admin/logout/"])
def test_form_from_another_site_is_refused(address: str) -> None:
    user = enrolled()
    client = verified(user) if address in (ENROL, RENEW, REMOVE) else with_password(user)
    before = devices_of(user)
    client.handler.enforce_csrf_checks = True
    sent = {"code": right_code(user, 1), "username": user.username, "password": PASSWORD}
    assert client.post(address, sent).status_code == 403
    assert devices_of(user) == before


# --- Enrolment --------------------------------------------------------------------------------------
@pytest.mark.usefixtures("required")
def test_required_second_factor_is_set_up_first() -> None:
    user = new_operator("view_wallet")
    client = Client()
    at = f"{LOGIN}?next=/admin/wallets/wallet/"
    response = client.post(at, {"username": user.username, "password": PASSWORD}, follow=True)
    address, _ = response.redirect_chain[-1]
    assert address.startswith(ENROL)
    assert "<svg" in text_of(response)
    key = key_of_page(client, address)
    assert devices_of(user) == []

    response = client.post(address, {"code": code_of(key)})
    assert response["Location"].startswith(CODES)
    assert device_of(user).key == key
    html = shown(client, response["Location"])
    codes = codes_of_page(html)
    assert len(set(codes)) == 10
    assert 'href="/admin/wallets/wallet/"' in html
    assert may_enter(client)
    assert log_of(user) == ["Set up a second factor"]
    assert client.get(CODES)["Location"] == HOME  # the codes are shown once

    again = with_password(user)
    assert again.post(CODE, {"code": codes[3]}).status_code == 302
    assert "Recovery codes left: <strong" in shown(again, HOME)
    assert ">9</strong>" in shown(again, HOME)


@pytest.mark.usefixtures("required")
def test_code_of_the_enrolment_cannot_log_in() -> None:
    user = new_operator()
    client = with_password(user)
    code = code_of(key_of_page(client))
    assert client.post(ENROL, {"code": code}).status_code == 302
    assert "was used before" in errors_of(with_password(user).post(CODE, {"code": code}))


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("code", ["000000", "", "abcdef", "\x00", "x" * 10_000, "٣٣٣٣٣٣"])
def test_wrong_code_enrols_no_device(code: str) -> None:
    user = new_operator()
    client = with_password(user)
    key = key_of_page(client)
    response = client.post(ENROL, {"code": code})
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == {"code"}
    assert devices_of(user) == []
    assert log_of(user) == []
    assert not may_enter(client)
    assert key_of_page(client) == key  # the app has it already
    assert client.post(ENROL, {"code": code_of(key)}).status_code == 302


@pytest.mark.usefixtures("required")
def test_each_session_gets_its_own_enrolment_key() -> None:
    """Otherwise a person who knows the password would know the key that the owner enrols."""
    user = new_operator()
    assert key_of_page(with_password(user)) != key_of_page(with_password(user))


def test_optional_second_factor_can_be_set_up() -> None:
    user = new_operator()
    client = with_password(user)
    assert f'href="{ENROL}"' in shown(client, HOME)
    assert f'href="{HOME}"' in shown(client, "/admin/")
    assert client.post(ENROL, {"code": code_of(key_of_page(client))}).status_code == 302
    assert may_enter(client)
    assert not may_enter(with_password(user))


@pytest.mark.usefixtures("required_or_optional")
def test_password_alone_cannot_replace_the_second_factor() -> None:
    user = enrolled()
    before = devices_of(user)
    client = with_password(user)
    assert client.get(ENROL)["Location"].startswith(CODE)
    key = "ab" * 20
    session = client.session
    session["second_factor_key"] = key
    session.save()
    assert client.post(ENROL, {"code": code_of(key)})["Location"].startswith(CODE)
    for address in (RENEW, REMOVE):
        assert client.post(address)["Location"] == HOME
    assert client.get(HOME)["Location"].startswith(LOGIN)
    assert devices_of(user) == before
    assert not may_enter(client)


@pytest.mark.usefixtures("required")
def test_stale_enrolment_form_does_not_replace_the_device() -> None:
    """The page was opened before another session enrolled a device, and its form is sent afterwards."""
    user = new_operator()
    slow, quick = with_password(user), with_password(user)
    keys = [key_of_page(client) for client in (slow, quick)]
    assert quick.post(ENROL, {"code": code_of(keys[1])}).status_code == 302
    before = devices_of(user)
    assert slow.post(ENROL, {"code": code_of(keys[0])})["Location"].startswith(CODE)
    assert devices_of(user) == before
    assert not may_enter(slow)


@pytest.mark.usefixtures("required")
def test_concurrent_enrolments_create_one_device() -> None:
    user = new_operator()
    clients = [with_password(user) for _ in range(2)]
    sent = [(client, ENROL, code_of(key_of_page(client))) for client in clients]
    assert send_concurrently("wallet_user WHERE id = %s", user, *sent) == [200, 302]
    assert TOTPDevice.objects.filter(user=user).count() == 1
    assert StaticToken.objects.filter(device__user=user).count() == 10
    assert sum(map(may_enter, clients)) == 1


# --- Management -------------------------------------------------------------------------------------
@pytest.mark.usefixtures("required_or_optional", "short_deadline")
def test_renewed_recovery_codes_replace_the_old_ones() -> None:
    user = enrolled()
    client = verified(user)
    assert client.get(RENEW).status_code == 405
    assert client.post(RENEW)["Location"] == CODES
    codes = codes_of_page(shown(client, CODES))
    assert len(set(codes)) == 10
    assert log_of(user) == ["Renewed the recovery codes"]
    again = with_password(user)
    assert "wrong" in errors_of(again.post(CODE, {"code": RECOVERY}))
    assert again.post(CODE, {"code": codes[0]}).status_code == 302
    assert may_enter(client)


@pytest.mark.usefixtures("required_or_optional", "short_deadline")
def test_new_device_ends_the_old_device_codes_and_sessions() -> None:
    user = enrolled()
    client, other = verified(user), with_password(user)
    assert other.post(CODE, {"code": RECOVERY}).status_code == 302
    StaticToken.objects.create(device=StaticDevice.objects.get(user=user), token=RECOVERY)
    old_key = device_of(user).key
    key = key_of_page(client)
    assert client.post(ENROL, {"code": code_of(old_key, 2)}).status_code == 200
    assert device_of(user).key == old_key
    assert client.post(ENROL, {"code": code_of(key)}).status_code == 302
    assert device_of(user).key == key
    assert len(codes_of_page(shown(client, CODES))) == 10
    assert may_enter(client)
    assert not may_enter(other)
    for code in (code_of(old_key, 1), RECOVERY):
        assert "wrong" in errors_of(other.post(CODE, {"code": code}))
    assert log_of(user) == ["Replaced the second factor"]


def test_optional_second_factor_can_be_removed() -> None:
    user = enrolled()
    client = verified(user)
    assert f'action="{REMOVE}"' in shown(client, HOME)
    assert client.get(REMOVE).status_code == 405
    assert client.post(REMOVE)["Location"] == HOME
    assert devices_of(user) == []
    assert log_of(user) == ["Removed the second factor"]
    assert may_enter(client)
    assert may_enter(with_password(user))


@pytest.mark.usefixtures("required")
def test_required_second_factor_cannot_be_removed() -> None:
    user = enrolled()
    client = verified(user)
    before = devices_of(user)
    assert REMOVE not in shown(client, HOME)
    assert client.post(REMOVE)["Location"] == HOME
    assert devices_of(user) == before


def test_admin_pages_show_no_second_factor_secret() -> None:
    user = enrolled()
    root = logged_in(new_user(is_superuser=True))
    for address in ("/admin/otp_totp/totpdevice/", "/admin/otp_static/staticdevice/"):
        assert root.get(address).status_code == 404
    html = shown(root, f"/admin/wallets/user/{user.pk}/change/")
    assert device_of(user).key not in html
    assert RECOVERY not in html


# --- Reset ------------------------------------------------------------------------------------------
def reset_page(user: User) -> str:
    return f"/admin/wallets/user/{user.pk}/reset_second_factor/"


def change_page(user: User) -> str:
    return f"/admin/wallets/user/{user.pk}/change/"


def test_superuser_resets_a_second_factor_after_confirmation(settings: LazySettings) -> None:
    user = enrolled()
    client = verified(user)
    root = logged_in(new_user(is_superuser=True))
    assert reset_page(user) in shown(root, change_page(user))
    assert "The password alone will be enough to log in" in shown(root, reset_page(user))
    assert devices_of(user)
    assert root.post(reset_page(user))["Location"] == change_page(user)
    assert devices_of(user) == []
    assert log_of(user) == ["Reset the second factor"]
    assert reset_page(user) not in shown(root, change_page(user))
    settings.ADMIN_OTP = True
    assert not may_enter(client)
    assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith(ENROL)


def test_reset_without_a_second_factor_is_not_logged() -> None:
    user = new_operator()
    root = logged_in(new_user(is_superuser=True))
    assert root.post(reset_page(user)).status_code == 302
    assert log_of(user) == []
    missing = root.get("/admin/wallets/user/999999999/reset_second_factor/", follow=True)
    assert "doesn’t exist" in text_of(missing)


def test_only_superusers_reset_a_second_factor() -> None:
    user = enrolled()
    before = devices_of(user)
    client = logged_in(new_user("view_user", "change_user", "delete_totpdevice"))
    assert reset_page(user) not in shown(client, change_page(user))
    for send in (client.get, client.post):
        assert send(reset_page(user)).status_code == 403
    assert devices_of(user) == before


def test_command_resets_a_second_factor() -> None:
    user = enrolled()
    client = verified(user)
    assert (
        run("reset_second_factor", user.username.upper()) == f"Removed the second factor of {user.username}\n"
    )
    assert devices_of(user) == []
    assert run("reset_second_factor", user.username) == f"{user.username} has no second factor\n"
    assert may_enter(with_password(user))
    assert may_enter(client)  # ADMIN_OTP is off


def test_reset_command_refuses_an_unknown_user() -> None:
    with pytest.raises(CommandError, match="there is no user no-such-user") as error:
        run("reset_second_factor", "no-such-user")
    assert error.value.returncode == 2


# --- API --------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("required_or_optional")
def test_session_has_api_rights_only_after_the_second_factor() -> None:
    user = enrolled("view_wallet", "view_operation", "view_hold")
    wallet = f"/api/v1/wallets/{new_wallet().id}"
    assert with_password(user).get(wallet).status_code == 403
    assert verified(user).get(wallet).status_code == 200
