"""Rate limits of requests, logins and sign-ups, and the lockout after wrong passwords."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from axes.models import AccessAttempt
from django.conf import LazySettings
from django.db import connection
from django.db.models import F
from django.test import RequestFactory
from django.utils import timezone

from tests.conftest import Unchanged, running_service
from tests.support.client import Answer, Api, InProcess, OverHttp
from tests.support.keys import PASSWORD, new_key, new_operator, prefix_of, session_of
from tests.support.people import (
    MODEL_BACKEND,
    bank,
    new_account,
    new_address,
    registration,
    without_request_id,
)
from wallets.access import limits
from wallets.access.passwords import Hasher
from wallets.access.rights import ADMIN, READ
from wallets.models import RateLimit, User, Wallet
from walletsvc.environment import Rate

pytestmark = pytest.mark.usefixtures("quick_hashing")

ENDLESS_SECONDS = 9999 * 86_400  # no window ends within a test
Limit = Callable[..., None]


@pytest.fixture(autouse=True)
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


@pytest.fixture
def limit(settings: LazySettings) -> Limit:
    """`limit(key=3)` allows three requests for each key, and sets no other limit."""

    def set_limits(seconds: int = ENDLESS_SECONDS, **hits: int) -> None:
        off = dict.fromkeys(settings.RATE_LIMITS)
        settings.RATE_LIMITS = off | {name: Rate(count, seconds) for name, count in hits.items()}

    return set_limits


def new_ip() -> str:
    """Return an address that no other test uses."""
    return f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"  # noqa: S311


def client_at(address: str, key: str | None = None, **headers: str) -> Api:
    return Api(InProcess(REMOTE_ADDR=address, **headers), key)


def statuses(times: int, send: Callable[[], Answer]) -> list[int]:
    return [send().status for _ in range(times)]


def assert_is_refused(answer: Answer, name: str, hits: int) -> None:
    assert (answer.status, answer.code) == (429, "too_many_requests")
    assert answer.headers["ratelimit-policy"] == f'"{name}";q={hits};w={ENDLESS_SECONDS}'
    seconds = re.fullmatch(rf'"{name}";r=0;t=([0-9]+)', answer.headers["ratelimit"])
    assert seconds
    assert answer.headers["retry-after"] == seconds[1]
    assert 0 < int(seconds[1]) <= ENDLESS_SECONDS


# --- Requests ---------------------------------------------------------------------------------------
def test_responses_state_the_remaining_requests(limit: Limit) -> None:
    limit(key=3)
    api = Api(key=new_key(READ))
    answers = [api.get("/wallets"), api.get(f"/wallets/{uuid4()}"), api.post("/wallets", {}), api.get("/me")]
    assert [answer.status for answer in answers] == [200, 404, 403, 403]
    assert [answer.headers.get("ratelimit-policy") for answer in answers] == [
        f'"key";q=3;w={ENDLESS_SECONDS}',
        f'"key";q=3;w={ENDLESS_SECONDS}',
        None,
        None,
    ]  # a request without its scope is not counted
    assert [answer.headers["ratelimit"].split(";")[:2] for answer in answers[:2]] == [
        ['"key"', "r=2"],
        ['"key"', "r=1"],
    ]
    assert statuses(2, lambda: api.get("/wallets")) == [200, 429]
    assert_is_refused(api.get("/wallets"), "key", 3)


def test_request_beyond_its_limit_changes_nothing(limit: Limit, unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    key = new_key(ADMIN)
    limit(key=1, user=1)
    api, session = Api(key=key), session_of(anna.user)
    assert (api.get("/wallets").status, session.get("/me").status) == (200, 200)
    wallets = Wallet.objects.count()
    with unchanged(anna.wallet_id, boris.wallet_id):
        assert_is_refused(api.deposit(anna.wallet_id, 1, key="k"), "key", 1)
        assert_is_refused(api.transfer(anna.wallet_id, boris.wallet_id, 1, key="k"), "key", 1)
        assert_is_refused(api.post("/wallets", {}), "key", 1)
        assert_is_refused(session.transfer(anna.wallet_id, boris.wallet_id, 1, key="k"), "user", 1)
        assert_is_refused(session.post("/logout", {}), "user", 1)
    assert Wallet.objects.count() == wallets
    limit()
    assert session.get("/me").status == 200
    assert (
        api.transfer(anna.wallet_id, boris.wallet_id, 1, key="k").status == 201
    )  # the idempotency key is still unused


def test_each_key_and_user_has_its_own_count(limit: Limit) -> None:
    one, other, anna, boris = new_key(READ), new_key(READ), new_account().user, new_account().user
    operator = new_operator(is_superuser=True)
    limit(key=1, user=1, address=1)
    for send in (
        lambda: Api(key=one).get("/wallets"),
        lambda: Api(key=other).get("/wallets"),
        lambda: session_of(anna).get("/me"),
        lambda: session_of(boris).get("/me"),
        lambda: session_of(operator).get("/me"),
    ):
        assert statuses(2, send) == [200, 429]


def test_sessions_of_a_user_share_a_count_with_pages(limit: Limit) -> None:
    anna = new_account()
    limit(user=3)
    assert session_of(anna.user).get("/me").status == 200
    page = session_of(anna.user).sender
    assert [page.send("GET", path).status for path in ("/", f"/wallets/{anna.wallet_id}")] == [200, 200]
    refused = page.send("GET", "/")
    assert (refused.status, refused.headers["content-type"]) == (429, "text/html; charset=utf-8")
    assert int(refused.headers["retry-after"]) > 0
    assert session_of(anna.user).get("/me").status == 429


def test_client_without_credentials_is_counted_by_address(limit: Limit, settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    key, person = new_key(READ), new_account()
    limit(address=2)
    address = new_ip()
    assert statuses(3, lambda: client_at(address).get("/wallets")) == [200, 200, 429]
    assert_is_refused(client_at(address).get("/wallets"), "address", 2)
    assert client_at(new_ip()).get("/wallets").status == 200
    assert client_at(address, key).get("/wallets").status == 200  # keys and users have their own counts
    api = session_of(person.user)
    assert isinstance(api.sender, InProcess)
    api.sender.client.defaults["REMOTE_ADDR"] = address
    assert statuses(3, lambda: api.get("/me")) == [200, 200, 200]


def test_count_restarts_with_the_next_window(limit: Limit) -> None:
    limit(seconds=1, key=2)
    api = Api(key=new_key(READ))
    while api.get("/wallets").status == 200:
        pass
    while (answer := api.get("/wallets")).status == 429:
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.05)
    assert answer.status == 200
    assert answer.headers["ratelimit"] == '"key";r=1;t=1'


def test_limit_that_is_off_writes_no_row_and_sends_no_headers(limit: Limit) -> None:
    limit()
    anna = new_account("1")
    subjects = set(RateLimit.objects.values_list("subject", "hits"))
    for answer in (
        bank().get("/wallets"),
        session_of(anna.user).get("/me"),
        Api().post("/login", {"email": anna.user.email, "password": PASSWORD}),
        Api().post("/signup", registration()),
        InProcess().send("GET", "/login"),
    ):
        assert answer.status < 300
        assert not {"ratelimit", "ratelimit-policy", "retry-after"} & answer.headers.keys()
    assert set(RateLimit.objects.values_list("subject", "hits")) == subjects


# --- Client addresses -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("is_trusted", "peer", "forwarded", "network"),
    [
        (False, "192.0.2.1", None, "192.0.2.1"),
        (False, "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (True, "192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (True, "192.0.2.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        (True, "192.0.2.1", "203.0.113.9,198.51.100.7 ", "198.51.100.7"),
        (True, "192.0.2.1", "198.51.100.7, garbage", "192.0.2.1"),
        (True, "192.0.2.1", "198.51.100.7,", "192.0.2.1"),
        (True, "192.0.2.1", "", "192.0.2.1"),
        (True, "192.0.2.1", None, "192.0.2.1"),
        (True, "192.0.2.1", "١٩٨.51.100.7", "192.0.2.1"),
        (True, "192.0.2.1", "127.1", "192.0.2.1"),
        (True, "192.0.2.1", "x" * 10_000, "192.0.2.1"),
        (False, "2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        (False, "2001:db8:1:2:ffff::", None, "2001:db8:1:2::/64"),
        (False, "2001:db8:1:3::1", None, "2001:db8:1:3::/64"),
        (False, "::ffff:192.0.2.1", None, "192.0.2.1"),  # a dual-stack socket
        (False, "fe80::1%eth0", None, "fe80::/64"),
        (True, "192.0.2.1", "fe80::1%'; --", "fe80::/64"),
        (False, "", None, "127.0.0.1"),  # a Unix socket
        (False, "unix:", None, "127.0.0.1"),
    ],
)
def test_client_network_is_of_the_peer_or_trusted_proxy(
    settings: LazySettings, is_trusted: bool, peer: str, forwarded: str | None, network: str
) -> None:
    settings.TRUST_PROXY = is_trusted
    request = RequestFactory().get("/", REMOTE_ADDR=peer)
    if forwarded is not None:
        request.META["HTTP_X_FORWARDED_FOR"] = forwarded
    assert limits.network_of(request) == network


def test_forged_forwarded_addresses_do_not_evade_the_limit(limit: Limit, settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    limit(address=2)
    address = new_ip()

    def send() -> Answer:
        return client_at(address).get("/wallets", X_Forwarded_For=new_ip())

    assert statuses(3, send) == [200, 200, 429]
    settings.TRUST_PROXY = True
    assert statuses(3, send) == [200, 200, 200]
    last = new_ip()
    assert statuses(3, lambda: client_at(address).get("/wallets", X_Forwarded_For=f"{new_ip()}, {last}")) == [
        200,
        200,
        429,
    ]


def test_addresses_of_one_ipv6_network_share_a_limit(limit: Limit, settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    limit(address=2)
    network = f"2001:db8:{random.randrange(65536):x}:{random.randrange(65536):x}"  # noqa: S311
    addresses = [f"{network}::1", f"{network}:ffff::", f"{network}:1:2:3:4"]
    assert [client_at(address).get("/wallets").status for address in addresses] == [200, 200, 429]


@pytest.mark.parametrize("peer", ["", "unix:", "::ffff:192.0.2.9", "fe80::1%eth0", "fe80::2%x y"])
def test_login_from_any_peer_address_is_answered(limit: Limit, peer: str) -> None:
    limit(login=1000, signup=1000)
    login = {"email": new_address(), "password": "wrong"}
    assert [client_at(peer).post("/login", login).code for _ in range(2)] == ["invalid_credentials"] * 2
    assert client_at(peer).post("/signup", registration()).status == 201


# --- Several processes ------------------------------------------------------------------------------
@pytest.mark.slow
def test_processes_share_a_count_and_refusals_move_nothing() -> None:
    wallet_id, key = new_account().wallet_id, new_key(ADMIN)
    with running_service(API_ACCESS="key", WORKERS="2", RATE_LIMIT_KEY="50/9999d") as address:

        def deposit(_: int) -> list[int]:
            sender = OverHttp(address)
            with closing(sender.connection):
                return statuses(25, lambda: Api(sender, key).deposit(wallet_id, 1))

        with ThreadPoolExecutor(8) as pool:
            answered = Counter(status for found in pool.map(deposit, range(8)) for status in found)
    assert answered == {201: 50, 429: 150}
    assert bank().balance(wallet_id) == "50.00"
    assert RateLimit.objects.get(subject=f"key:{prefix_of(key)}").hits == 200


def test_concurrent_counts_of_many_subjects_do_not_deadlock() -> None:
    run = uuid4()
    subjects = [f"key:{run}-{number}" for number in range(40)]

    def count(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        try:
            for _ in range(50):
                limits._count_requests([(subject, ENDLESS_SECONDS) for subject in dice.sample(subjects, 40)])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert list(RateLimit.objects.filter(subject__in=subjects).values_list("hits", flat=True)) == [400] * 40


def test_concurrent_requests_get_consecutive_counts() -> None:
    one, other = (f"key:{uuid4()}", ENDLESS_SECONDS), (f"key:{uuid4()}", ENDLESS_SECONDS)
    assert [hits for hits, _ in limits._count_requests([one, other, one, one])] == [1, 1, 2, 3]
    assert [hits for hits, _ in limits._count_requests([other, one])] == [2, 4]


def test_rows_of_ended_windows_are_deleted(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(seconds=3600, key=10, user=10)
    now = timezone.now()
    for subject, age in (("key:ended", 3700), ("key:current", 3500)):
        RateLimit.objects.update_or_create(
            subject=subject, defaults={"began_at": now - timedelta(seconds=age), "hits": 1}
        )
    monkeypatch.setattr(limits, "_last_deletion_at", time.monotonic() - limits.DELETION_INTERVAL_SECONDS)
    assert Api(key=new_key(READ)).get("/wallets").status == 200
    remaining = RateLimit.objects.filter(subject__in=["key:ended", "key:current"])
    assert [row.subject for row in remaining] == ["key:current"]
    remaining.delete()


# --- Login and sign-up ------------------------------------------------------------------------------
def log_in(api: Api, login: str, password: str = PASSWORD, **headers: str) -> Answer:
    return api.post("/login", {"email": login, "password": password}, **headers)


def page_login(address: str, login: str, password: str = PASSWORD) -> Answer:
    client = InProcess(REMOTE_ADDR=address).client
    page = client.post("/login", {"username": login, "password": password})
    return Answer(page.status_code, {k.lower(): v for k, v in page.headers.items()}, page.content)


def assert_is_refused_page(page: Answer) -> None:
    assert page.status == 429
    assert int(page.headers["retry-after"]) > 0
    assert b"Wait a little and try again" in page.content


def test_login_beyond_the_limit_is_refused_with_any_password(limit: Limit, hashed: list[str]) -> None:
    anna = new_account().user
    limit(login=3)
    address = new_ip()
    attempts = [
        log_in(client_at(address), anna.email),
        log_in(client_at(address), new_address(), "wrong"),
        page_login(address, anna.email),
    ]
    assert [answer.status for answer in attempts] == [200, 401, 302]
    hashed.clear()
    api = client_at(address)
    assert_is_refused(log_in(api, anna.email), "login", 3)
    assert api.get("/me").code == "unauthorized"
    assert_is_refused_page(page_login(address, anna.email))
    assert client_at(address).sender.send("POST", "/admin/login/", b"").status == 429
    assert hashed == []
    assert log_in(client_at(new_ip()), anna.email).status == 200


@pytest.mark.parametrize("path", ["/password", "/admin/password_change/"])
def test_guesses_of_the_old_password_are_limited(path: str, limit: Limit, hashed: list[str]) -> None:
    operator, address = new_operator(is_superuser=True), new_ip()
    client = InProcess(REMOTE_ADDR=address).client
    client.force_login(operator, backend=MODEL_BACKEND)
    limit(login=2)
    new = "nine green elephants"
    forms = [
        {"old_password": old, "new_password1": new, "new_password2": new}
        for old in ("wrong", "bad", PASSWORD)
    ]
    assert [client.post(path, form).status_code for form in forms[:2]] == [200, 200]
    hashed.clear()
    refused = client.post(path, forms[2])  # the correct password
    assert (refused.status_code, int(refused["Retry-After"]) > 0, hashed) == (429, True, [])
    assert b"Wait a little and try again" in refused.content
    assert client.get(path).status_code == 200
    assert log_in(client_at(address), operator.username).status == 429  # counted together with logins
    limit()
    assert client.post(path, forms[2]).status_code == 302


def test_sign_up_beyond_the_limit_creates_no_account(limit: Limit, hashed: list[str]) -> None:
    limit(signup=2)
    address = new_ip()
    first = client_at(address).post("/signup", registration())
    assert (first.status, first.headers["ratelimit"].split(";")[1]) == (201, "r=1")
    client = InProcess(REMOTE_ADDR=address).client
    assert client.post("/signup", registration()).status_code == 302
    before = User.objects.count(), Wallet.objects.count()
    hashed.clear()
    assert_is_refused(client_at(address).post("/signup", registration()), "signup", 2)
    client = InProcess(REMOTE_ADDR=address).client
    page = client.post("/signup", registration())
    assert (page.status_code, int(page["Retry-After"]) > 0) == (429, True)
    assert "sessionid" not in client.cookies
    assert (User.objects.count(), Wallet.objects.count()) == before
    assert hashed == []
    assert client_at(new_ip()).post("/signup", registration()).status == 201


def test_invalid_sign_up_counts_too(limit: Limit) -> None:
    """The limit is counted before the body is read."""
    limit(signup=2)
    address = new_ip()
    assert statuses(3, lambda: client_at(address).post("/signup", registration(email="anna"))) == [
        400,
        400,
        429,
    ]


# --- Wrong passwords --------------------------------------------------------------------------------
def wrong(times: int, address: str, login: str) -> list[int]:
    return statuses(times, lambda: log_in(client_at(address), login, "wrong"))


def test_fifth_wrong_password_locks_the_account_for_the_address(hashed: list[str]) -> None:
    anna, boris = new_account().user, new_account().user
    address = new_ip()
    assert wrong(5, address, anna.email) == [401, 401, 401, 401, 429]
    hashed.clear()
    api = client_at(address)
    answer = log_in(api, anna.email)  # the correct password
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_requests", "900")
    assert api.get("/me").code == "unauthorized"
    assert_is_refused_page(page_login(address, anna.email))
    assert hashed == []
    assert log_in(client_at(address), boris.email).status == 200
    assert log_in(client_at(new_ip()), anna.email).status == 200


def test_spellings_of_a_login_share_one_lockout() -> None:
    email = f"sissi-{uuid4()}@example.com"
    user = new_account(username=email, email=email).user
    address = new_ip()
    # A long s has the upper case of s, a dotless i that of i: to the database they are one name.
    spellings = [email.upper(), email.title(), email.replace("s", "ſ"), email.replace("i", "ı"), email]
    assert [log_in(client_at(address), login, "wrong").status for login in spellings] == [
        401,
        401,
        401,
        401,
        429,
    ]
    assert log_in(client_at(address), user.email).status == 429


def test_lockout_ignores_the_browser() -> None:
    anna, address = new_account().user, new_ip()
    found = [
        log_in(client_at(address), anna.email, "wrong", User_Agent=f"browser {number}", Accept="*/*").status
        for number in range(5)
    ]
    assert found == [401, 401, 401, 401, 429]


def test_api_and_pages_share_a_lockout() -> None:
    anna, address = new_account().user, new_ip()
    assert wrong(2, address, anna.email) == [401, 401]
    assert [page_login(address, anna.email.upper(), "wrong").status for _ in range(3)] == [200, 200, 429]
    assert log_in(client_at(address), anna.email).status == 429


def test_unknown_account_is_locked_like_a_known_one() -> None:
    anna, address = new_account().user, new_ip()
    unknown_email = new_address()
    known = [log_in(client_at(address), anna.email, "wrong") for _ in range(6)]
    unknown = [log_in(client_at(address), unknown_email, "wrong") for _ in range(6)]
    assert [without_request_id(answer) for answer in unknown] == [
        without_request_id(answer) for answer in known
    ]
    assert [answer.headers.get("retry-after") for answer in unknown] == [None] * 4 + ["900"] * 2


def test_correct_password_resets_the_lockout_count() -> None:
    anna, address = new_account().user, new_ip()
    for _ in range(2):
        assert wrong(4, address, anna.email) == [401] * 4
        assert log_in(client_at(address), anna.email.upper()).status == 200
    assert wrong(5, address, anna.email) == [401, 401, 401, 401, 429]


def test_lockout_ends_in_time_despite_further_attempts() -> None:
    anna, address = new_account().user, new_ip()
    wrong(5, address, anna.email)
    attempts = AccessAttempt.objects.filter(username=anna.email)
    attempts.update(attempt_time=F("attempt_time") - timedelta(minutes=14))
    assert wrong(3, address, anna.email) == [429] * 3
    attempts.update(attempt_time=F("attempt_time") - timedelta(minutes=1))
    assert log_in(client_at(address), anna.email).status == 200


def test_failed_login_stores_no_password() -> None:
    anna, address = new_account().user, new_ip()
    log_in(client_at(address), anna.email, "hunter2-hunter2")
    page_login(address, anna.email, "hunter2-hunter2")
    found = list(AccessAttempt.objects.filter(username=anna.email).values())
    assert found
    assert "hunter2" not in str(found)


def test_addresses_of_one_ipv6_network_share_a_lockout() -> None:
    anna = new_account().user
    network = f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}:"
    found = [log_in(client_at(f"{network}:{number}"), anna.email, "wrong").status for number in range(1, 6)]
    assert found == [401, 401, 401, 401, 429]
    assert log_in(client_at(f"{network}ffff::1"), anna.email).status == 429


@pytest.mark.parametrize("attempt", [log_in, lambda api, login: page_login(api.sender.address, login)])
def test_concurrent_wrong_passwords_lock_out_a_correct_one(
    monkeypatch: pytest.MonkeyPatch, attempt: Callable[..., Answer]
) -> None:
    anna, address = new_account().user, new_ip()
    encode = Hasher.encode

    def encode_after_another_attempt(self: Hasher, password: str, *args: Any) -> str:
        """Record the fifth wrong password while the correct one is checked."""
        fields = {"user_agent": "other", "http_accept": "", "path_info": "", "get_data": "", "post_data": ""}
        AccessAttempt.objects.get_or_create(
            username=anna.email, ip_address=address, defaults={**fields, "failures_since_start": 5}
        )
        return encode(self, password, *args)

    monkeypatch.setattr(Hasher, "encode", encode_after_another_attempt)
    api = client_at(address)
    api.sender.address = address  # type: ignore[attr-defined]
    assert attempt(api, anna.email).status == 429
    assert api.get("/me").code == "unauthorized"


def test_login_states_the_remaining_attempts(limit: Limit) -> None:
    limit(login=3)
    anna, address = new_account().user, new_ip()
    for password, remaining in (("wrong", 2), (PASSWORD, 1)):
        answer = log_in(client_at(address), anna.email, password)
        assert answer.headers["ratelimit"].startswith(f'"login";r={remaining};')


@pytest.mark.usefixtures("quick_hashing")
def test_mails_to_one_address_are_limited(limit: Limit, settings: LazySettings) -> None:
    settings.MAIL, settings.EMAIL_BACKEND = {}, "django.core.mail.backends.locmem.EmailBackend"
    limit(reset=2)
    known, unknown = new_account().user.email, new_address()
    for email in (known, unknown):
        sent = [
            InProcess(REMOTE_ADDR=new_ip())
            .client.post("/password/forgotten", {"email": spelling})
            .status_code
            for spelling in (email, email.upper(), email)
        ]
        assert sent == [302, 302, 429]
