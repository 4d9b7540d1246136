"""Sign-up, login, logout and the user's own wallet over the API."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import Any
from unicodedata import normalize
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.sessions.backends.db import SessionStore

from tests.support.client import UNKNOWN_ID, Answer, Api, InProcess, OverHttp
from tests.support.keys import PASSWORD, new_operator, new_person, session_of
from tests.support.people import (
    Browser,
    bank,
    new_account,
    new_address,
    new_wallet,
    registration,
    session_key,
    with_session,
    without_request_id,
)
from wallets.access.passwords import Hasher
from wallets.models import User, Wallet

pytestmark = pytest.mark.usefixtures("quick_hashing")


@pytest.fixture(autouse=True)
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


def sign_up(api: Api, **fields: Any) -> Answer:
    return api.post("/signup", registration(**fields))


def log_in(api: Api, login: str, password: str = PASSWORD) -> Answer:
    return api.post("/login", {"email": login, "password": password})


def cookies_of(api: Api) -> Any:
    assert isinstance(api.sender, InProcess)
    return api.sender.client.cookies


def count_users_and_wallets() -> tuple[int, int]:
    return User.objects.count(), Wallet.objects.count()


# --- Sign-up ----------------------------------------------------------------------------------------
def test_sign_up_creates_an_empty_wallet_and_a_session(api: Api, settings: LazySettings) -> None:
    settings.DEFAULT_CURRENCY = "EUR"
    email = new_address()
    answer = sign_up(api, name=" Anna  Petrova ", email=email.upper())
    user = User.objects.get(username=email)
    wallet = Wallet.objects.get(owner=user)
    assert (answer.status, answer.headers["location"]) == (201, "/api/v1/me")
    assert answer.json | {"createdAt": ""} == {
        "name": "Anna  Petrova",
        "email": email,
        "emailVerified": False,
        "walletId": str(wallet.id),
        "createdAt": "",
    }
    assert (wallet.currency, wallet.balance, wallet.label) == ("EUR", 0, "")
    assert (user.is_staff, user.is_superuser, user.user_permissions.count()) == (False, False, 0)
    assert api.get("/me").json == answer.json
    assert api.get(f"/wallets/{wallet.id}").json["balance"] == "0.00"


def test_session_cookie_is_httponly_and_samesite(api: Api) -> None:
    sign_up(api)
    session, token = cookies_of(api)["sessionid"], cookies_of(api)["csrftoken"]
    assert (session["httponly"], session["samesite"], session["path"]) == (True, "Lax", "/")
    assert (token["httponly"], token["samesite"]) == ("", "Lax")  # the page's scripts send it in a header


def test_spellings_of_an_address_are_one_account(api: Api, hashed: list[str]) -> None:
    email = new_address()
    sign_up(api, email=email)
    hashed.clear()
    before = count_users_and_wallets()
    for spelling in (email, email.upper(), email.title()):
        answer = sign_up(Api(), email=spelling)
        assert (answer.status, answer.code) == (409, "email_taken")
    assert count_users_and_wallets() == before
    assert hashed == []  # a refusal costs no hash


def test_sign_up_with_an_operators_login_or_address_is_refused(api: Api) -> None:
    operator = new_operator()
    User.objects.filter(pk=operator.pk).update(username=new_address())
    operator.refresh_from_db()
    before = count_users_and_wallets()
    for email in (operator.username.title(), operator.email.upper()):
        assert sign_up(api, email=email).code == "email_taken"
    assert count_users_and_wallets() == before


@pytest.mark.slow
def test_concurrent_sign_ups_with_one_address_create_one_account(service: str) -> None:
    email = new_address()

    def sign_up_on_a_new_connection(_: int) -> Answer:
        sender = OverHttp(service)
        with closing(sender.connection):
            return sign_up(Api(sender), email=email)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(sign_up_on_a_new_connection, range(20)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 429}  # too many concurrent hashes are refused
    assert Wallet.objects.filter(owner__in=User.objects.by_email(email)).count() == 1


@pytest.mark.parametrize(
    "password",
    ["short", "12345678901234", "password1", "Anna Petrova", "{email}", "anna-petrova", " " * 7],
)
def test_weak_password_is_refused(api: Api, password: str) -> None:
    email, before = new_address(), count_users_and_wallets()
    answer = sign_up(api, name="Anna Petrova", email=email, password=password.format(email=email))
    assert (answer.status, answer.code) == (400, "validation_error")
    assert {(error["field"], error["code"]) for error in answer.json["errors"]} == {
        ("password", "weak_password")
    }
    assert count_users_and_wallets() == before


LONG = "a" * 10_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "An\0na"),
        ("name", "\ud800"),
        ("name", LONG),
        ("name", ""),
        ("name", " \t "),
        ("name", "Anna\nBcc: eve@example.com"),
        ("name", "Anna\x1b[2J"),
        ("name", "\u202eavlE"),
        ("name", 5),
        ("name", None),
        ("name", ["Anna"]),
        ("email", "anna"),
        ("email", "an\0na@example.com"),
        ("email", "anna\udfff@example.com"),
        ("email", f"{LONG}@example.com"),
        ("email", "anna@example.com" + ".example" * 40),
        ("email", "annaſ@example.com"),
        ("email", "an\u212aa@example.com"),  # the Kelvin sign, whose lower case is k
        ("email", "anna@еxample.com"),  # with a Cyrillic letter
        ("email", "anna@exam\u200bple.com"),
        ("email", "anna@example.com\r\nBcc: eve@example.com"),
        ("email", "anna@example.com\n"),
        ("email", "anna@example.com, eve@example.com"),
        ("email", "Anna <anna@example.com>"),
        ("email", '"an\x01na"@example.com'),
        ("email", '"an\x7fna"@example.com'),
        ("email", " anna@example.com"),
        ("email", "anna@example.com "),
        ("email", ""),
        ("email", {"$ne": ""}),
        ("password", "correct\0horse battery"),
        ("password", "correct horse \ud800"),
        ("password", LONG),
        ("password", 12345678901234),
        ("password", None),
        ("isStaff", True),
        ("is_superuser", True),
        ("walletId", UNKNOWN_ID),
    ],
)
def test_invalid_sign_up_field_is_refused_by_name(api: Api, field: str, value: object) -> None:
    before = count_users_and_wallets()
    answer = sign_up(api, **{field: value})
    assert (answer.status, answer.code) == (400, "validation_error")
    assert {error["field"] for error in answer.json["errors"]} == {field}
    assert count_users_and_wallets() == before
    assert not cookies_of(api)


@pytest.mark.parametrize("field", ["name", "email", "password"])
def test_sign_up_field_is_required(api: Api, field: str) -> None:
    before = count_users_and_wallets()
    given = registration()
    del given[field]
    answer = api.post("/signup", given)
    assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, "required")]
    assert count_users_and_wallets() == before


@pytest.mark.parametrize(
    "name",
    [
        *("Анна", "O'Brien", "<b>Anna</b>", "日本", "x" * 150, "'; DROP TABLE wallet;"),
        "\u0646\u0627\u0632\u200c\u067e\u0631\u06cc",  # Persian, with a zero-width non-joiner
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala, with a zero-width joiner
    ],
)
def test_name_may_be_any_printable_text(api: Api, name: str) -> None:
    assert sign_up(api, name=name).json["name"] == name
    assert api.get("/me").json["name"] == name


def test_name_is_stored_in_the_composed_form(api: Api) -> None:
    assert sign_up(api, name="Jose\u0301").json["name"] == "Jos\u00e9"
    apart = "\u0958" * 150  # NFC takes this letter apart, and the column has 150 characters
    assert sign_up(Api(), name=apart).json["name"] == apart


def test_password_of_the_maximum_length_is_accepted(api: Api) -> None:
    email, password = new_address(), " пароль ✓ " + "x" * 1014
    assert sign_up(api, email=email, password=password).status == 201
    assert log_in(Api(), email, password).status == 200
    assert log_in(Api(), email, password.strip()).code == "invalid_credentials"


@pytest.mark.parametrize("stored", ["NFC", "NFD", "decomposed by 0.7"])
def test_password_may_be_typed_composed_or_decomposed(api: Api, stored: str) -> None:
    typed = {form: normalize(form, "crème brûlée 7") for form in ("NFC", "NFD")}
    if stored in typed:
        email = new_address()
        assert sign_up(api, email=email, password=typed[stored]).status == 201
    else:
        user = new_account().user
        email, user.password = user.email, PBKDF2PasswordHasher().encode(typed["NFD"], "salt", 1)
        user.save()
    assert log_in(Api(), email, typed["NFD"]).status == 200
    assert log_in(Api(), email, typed["NFC"]).status == 200
    assert log_in(Api(), email, "creme brulee 7").code == "invalid_credentials"


def test_wrong_decomposed_password_takes_as_long_for_an_unknown_login(hash_count: Callable[[], int]) -> None:
    password = normalize("NFD", "crème brûlée 8")
    hashes = []
    for login in (known_login(), unknown_login()):
        before = hash_count()
        assert log_in(Api(), login, password).code == "invalid_credentials"
        hashes.append(hash_count() - before)
    assert hashes == [2, 2]


@pytest.fixture
def hash_count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns how many hashes were computed."""
    computed: list[str] = []
    compute = Hasher._hash

    def compute_and_record(self: Hasher, password: str, salt: str, iterations: int | None) -> str:
        computed.append(password)
        return compute(self, password, salt, iterations)

    monkeypatch.setattr(Hasher, "_hash", compute_and_record)
    return lambda: len(computed)


# --- Login ------------------------------------------------------------------------------------------
def test_login_address_is_case_insensitive(api: Api) -> None:
    person = new_account()
    for spelling in (person.user.email, person.user.email.upper(), person.user.email.title()):
        api = Api()
        answer = log_in(api, spelling)
        assert (answer.status, answer.json["walletId"]) == (200, person.wallet_id)
        assert api.get("/me").json == answer.json


def test_operator_logs_in_with_the_username(api: Api) -> None:
    operator = new_operator()
    answer = log_in(api, operator.username.upper())
    assert (answer.status, answer.json["walletId"]) == (200, None)
    assert api.get("/me").status == 200
    assert api.get("/me/wallet").code == "wallet_not_found"


def test_login_name_may_be_composed_or_decomposed() -> None:
    name = f"ren\u00e9-{uuid4()}"
    user = new_operator()
    user.username = name
    user.save()
    for form in ("NFC", "NFD"):
        assert log_in(Api(), normalize(form, name)).status == 200


def test_login_invalidates_an_earlier_session_key() -> None:
    planted = SessionStore()
    planted["planted"] = "by an attacker who wants to share the session"
    planted.create()
    assert planted.session_key is not None
    api = with_session(planted.session_key)
    assert log_in(api, new_person().email).status == 200
    assert cookies_of(api)["sessionid"].value != planted.session_key
    assert api.get("/me").status == 200
    assert with_session(planted.session_key).get("/me").code == "unauthorized"


def test_login_as_another_user_starts_an_empty_session() -> None:
    anna, boris = new_account(), new_account()
    key = session_key(anna.user)
    api = with_session(key)
    assert log_in(api, boris.user.email).status == 200
    assert api.get("/me").json["email"] == boris.user.email
    assert with_session(key).get("/me").code == "unauthorized"


def unknown_login() -> str:
    return new_address()


def known_login() -> str:
    return new_account().user.email


def inactive_login() -> str:
    return new_account(is_active=False).user.email


def login_with_a_blank_password() -> str:
    return new_account(password="").user.email


@pytest.mark.parametrize("login", [unknown_login, known_login, inactive_login, login_with_a_blank_password])
def test_failed_logins_are_indistinguishable(hashed: list[str], login: Callable[[], str]) -> None:
    reference = log_in(Api(), known_login(), "wrong")
    address = login()
    hashed.clear()
    api = Api()
    answer = log_in(api, address, "wrong")
    assert without_request_id(answer) == without_request_id(reference)
    assert (answer.status, answer.code) == (401, "invalid_credentials")
    assert answer.headers.keys() == reference.headers.keys()
    assert len(hashed) == 1  # so all take the same time
    assert not cookies_of(api)


def test_inactive_user_cannot_log_in() -> None:
    person = new_account(is_active=False)
    api = Api()
    assert log_in(api, person.user.email).code == "invalid_credentials"
    assert api.get("/me").code == "unauthorized"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "a\0"),
        ("email", "\ud800"),
        ("email", LONG),
        ("email", None),
        ("email", {"$gt": ""}),
        ("password", "\0"),
        ("password", LONG),
        ("password", True),
        ("next", "/admin/"),
    ],
)
def test_malformed_credentials_are_refused_without_hashing(
    api: Api, hashed: list[str], field: str, value: object
) -> None:
    answer = api.post("/login", {"email": "anna@example.com", "password": "wrong", field: value})
    assert answer.code == "validation_error"
    assert {error["field"] for error in answer.json["errors"]} == {field}
    assert hashed == []


@pytest.mark.parametrize("login", ["", " ", "'; --", "%", "_", "anna@example.com ", "İ", "ß" * 254, "\u202e"])
def test_impossible_login_fails_like_an_unknown_one(api: Api, login: str) -> None:
    assert log_in(api, login).code == "invalid_credentials"


def test_failed_login_with_extreme_headers_is_answered(api: Api) -> None:
    headers = {"User_Agent": "x" * 3000, "Accept": "*/*, " + "x/y, " * 190}
    body = {"email": new_address(), "password": "wrong"}
    path = f"/login?a=%00%FF&{'b' * 3000}=1"
    assert api.post(path, body, **headers).code == "invalid_credentials"
    assert api.post(path, body, **headers).code == "invalid_credentials"


# --- Logout -----------------------------------------------------------------------------------------
def test_logout_ends_the_session_for_every_copy_of_its_cookie() -> None:
    key = session_key(new_account().user)
    api = with_session(key)
    assert api.get("/me").status == 200
    answer = api.post("/logout", {})
    assert (answer.status, answer.content) == (204, b"")
    assert with_session(key).get("/me").code == "unauthorized"
    assert api.get("/me").code == "unauthorized"
    assert api.post("/logout", {}).code == "unauthorized"


def test_logout_keeps_other_sessions() -> None:
    user = new_account().user
    here, there = session_of(user), session_of(user)
    assert here.post("/logout", {}).status == 204
    assert there.get("/me").status == 200


def test_changed_password_ends_other_sessions() -> None:
    user = new_account().user
    here, there = session_of(user), session_of(user)
    assert isinstance(here.sender, InProcess)
    new = "nine green elephants"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert here.sender.client.post("/password", form).status_code == 302
    assert here.get("/me").status == 200
    assert there.get("/me").code == "unauthorized"
    assert log_in(Api(), user.email).code == "invalid_credentials"
    assert log_in(Api(), user.email, new).status == 200


def test_deactivated_account_loses_its_session() -> None:
    user = new_account().user
    api = session_of(user)
    assert api.get("/me").status == 200
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert api.get("/me").code == "unauthorized"


# --- The user's own wallet --------------------------------------------------------------------------
def test_my_wallet_has_its_newest_operations_with_refusals() -> None:
    person = new_account()
    wallet_id = person.wallet_id
    for amount in range(1, 23):
        bank().deposit(wallet_id, amount)
    bank().withdraw(wallet_id, 1000)
    bank().void(bank().hold(wallet_id, 5).json["id"])
    bank().hold(wallet_id, 7)
    found = session_of(person.user).get("/me/wallet").json
    listed = bank().history(wallet_id, "limit=20")
    assert found == {"wallet": bank().wallet(wallet_id), "operations": listed}
    assert [item["status"] for item in listed[:2]] == ["REJECTED", "COMPLETED"]
    assert (found["wallet"]["balance"], found["wallet"]["held"]) == ("253.00", "7.00")
    assert {item["operationType"] for item in listed} == {"DEPOSIT", "WITHDRAW"}


def test_my_wallet_is_the_oldest_one() -> None:
    person = new_account()
    new_wallet(person.user, "5", currency="EUR")
    api = session_of(person.user)
    assert api.get("/me/wallet").json["wallet"]["id"] == person.wallet_id
    assert api.get("/me").json["walletId"] == person.wallet_id


@pytest.mark.slow
def test_my_wallet_is_consistent_under_load(service: str) -> None:
    person = new_account("1")
    browser, depositor = Browser(service), OverHttp(service)
    browser.cookies["sessionid"] = session_key(person.user)
    is_done = Event()

    def deposit() -> None:
        while not is_done.is_set():
            assert Api(depositor).deposit(person.wallet_id, 1).status == 201

    with closing(browser.connection), closing(depositor.connection), ThreadPoolExecutor(1) as pool:
        depositing = pool.submit(deposit)
        try:
            for _ in range(50):
                found = Api(browser).get("/me/wallet").json
                newest = found["operations"][0]
                assert newest["balance"] == found["wallet"]["balance"]
                assert newest["sequence"] == found["wallet"]["sequence"]
        finally:
            is_done.set()
        depositing.result()
