"""The life of an API key: made, told apart, used, expired, revoked; and what a stranger's guesses cost."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from tests.conftest import Unchanged, running_service
from tests.support.client import Answer, Api, OverHttp
from tests.support.keys import new_key, new_owner, prefix_of
from wallets.access import keys
from wallets.access.rights import ADMIN, DEPOSIT, READ, WRITE
from wallets.models import ApiKey

pytestmark = pytest.mark.usefixtures("quick_hashing")

WALLETS = "/wallets"
KEY = re.compile(r"wk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")


@pytest.fixture(autouse=True)
def _with_keys_alone(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


def ask(key: str) -> Answer:
    return Api(key=key).get(WALLETS)


def stored(key: str) -> ApiKey:
    return ApiKey.objects.get(prefix=prefix_of(key))


def run(command: str, *arguments: str) -> str:
    output = StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue()


# --- Made -------------------------------------------------------------------------------------------
def test_a_new_key_works_at_once_and_only_its_hash_is_stored() -> None:
    text = run("create_api_key", "--name", "till", "--scope", READ).strip()
    assert KEY.fullmatch(text)
    assert ask(text).status == 200
    secret = text.split("_", 2)[2]
    key = stored(text)
    assert bytes(key.digest) == sha256(secret.encode()).digest()
    assert secret not in str(ApiKey.objects.filter(prefix=key.prefix).values())


def test_no_two_keys_are_alike() -> None:
    assert len({keys.new_text() for _ in range(1000)}) == 1000


def test_a_key_is_made_with_all_that_was_asked_for() -> None:
    owner = new_owner()
    text = run(
        *("create_api_key", "--name", "shop", "--scope", WRITE, READ, "--scope", DEPOSIT),
        *("--owner", owner.username, "--restricted", "--expires", "2100-01-01T00:00:00Z"),
    ).strip()
    key = stored(text)
    assert (key.name, key.owner, key.is_restricted_to_owner) == ("shop", owner, True)
    assert key.scopes == [READ, WRITE, DEPOSIT]
    assert f"{key.expires_at}" == "2100-01-01 00:00:00+00:00"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--name", "x", "--scope", "everything"], "invalid choice"),
        (["--name", "x"], "--scope"),
        (["--scope", READ], "--name"),
        (["--name", " ", "--scope", READ], "--name must not be empty"),
        (["--name", "x", "--scope", READ, "--restricted"], "--restricted needs an --owner"),
        (["--name", "x", "--scope", READ, "--owner", "no-such-user"], "there is no user"),
        (["--name", "x", "--scope", READ, "--expires", "2020-01-01T00:00:00Z"], "must be in the future"),
        (["--name", "x", "--scope", READ, "--expires", "tomorrow"], "must be a time"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(arguments: list[str], told: str) -> None:
    before = ApiKey.objects.count()
    with pytest.raises(CommandError, match=told):
        run("create_api_key", *arguments)
    assert ApiKey.objects.count() == before


# --- Made of the environment ------------------------------------------------------------------------
FROM_ENVIRONMENT = ("create_api_key", "--name", "first", "--scope", ADMIN, "--from-environment", "FIRST_KEY")


def test_a_key_of_the_environment_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = keys.new_text()
    monkeypatch.setenv("FIRST_KEY", text)
    assert run(*FROM_ENVIRONMENT) == f"Created the API key {prefix_of(text)} from FIRST_KEY\n"
    assert ask(text).status == 200
    assert run(*FROM_ENVIRONMENT) == ""
    keys.revoke(prefix_of(text))
    assert run(*FROM_ENVIRONMENT) == ""
    assert ask(text).code == "unauthorized"  # revoked is revoked


def test_an_empty_variable_makes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ApiKey.objects.count()
    monkeypatch.setenv("FIRST_KEY", "")
    assert run(*FROM_ENVIRONMENT) == ""
    assert ApiKey.objects.count() == before


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "wk_short_hunter2",
        f"wk_ABCDEFGH_{'x' * 43}",
        f"wk_abcdefgh_{'x' * 42}",
        f"wk_abcdefgh_{'x' * 43}\n",
    ],
)
def test_a_malformed_key_of_the_environment_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    before = ApiKey.objects.count()
    monkeypatch.setenv("FIRST_KEY", text)
    with pytest.raises(CommandError, match="FIRST_KEY: a key is") as error:
        run(*FROM_ENVIRONMENT)
    assert text.strip() not in str(error.value)
    assert ApiKey.objects.count() == before


def test_a_key_does_not_take_the_prefix_of_another() -> None:
    text = new_key(READ)
    other = f"wk_{prefix_of(text)}_{'x' * 43}"
    with pytest.raises(ValueError, match="another key"):
        keys.make(other, name="x", scopes=[ADMIN])
    assert (ask(text).status, stored(text).scopes) == (200, [READ])


# --- Told apart -------------------------------------------------------------------------------------
def other_secret(key: str) -> str:
    return key[:-1] + ("A" if key[-1] != "A" else "B")


@pytest.mark.parametrize(
    "header",
    [
        lambda key: "",
        lambda key: key,
        lambda key: f"Basic {key}",
        lambda key: "Bearer",
        lambda key: "Bearer ",
        lambda key: f"Bearer  {key}",
        lambda key: f"Bearer {key} ",
        lambda key: f"Bearer {key}x",
        lambda key: f"Bearer {key[:-1]}",
        lambda key: f"Bearer {key.upper()}",
        lambda key: f"Bearer {other_secret(key)}",
        lambda key: f"Bearer {keys.new_text()}",
        lambda key: f"Bearer wk_{prefix_of(key)}_",
        lambda key: "Bearer wk_ключ",
        lambda key: "Bearer " + "x" * 5000,
    ],
)
def test_what_is_no_key_is_unauthorized(header: Callable[[str], str], unchanged: Unchanged) -> None:
    key = new_key(ADMIN)
    wallet = Api(key=key).open()
    with unchanged(wallet):
        answer = Api().deposit(wallet, 1)
        assert (answer.status, answer.code) == (401, "unauthorized")
        body = {"operationType": "DEPOSIT", "amount": 1}
        answer = Api().post(f"/wallets/{wallet}/operation", body, Authorization=header(key))
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert key not in answer.content.decode()


def test_the_scheme_may_be_written_in_any_case() -> None:
    key = new_key(READ)
    assert Api().get(WALLETS, Authorization=f"bearer {key}").status == 200


def test_an_expired_key_is_unauthorized_from_its_time_on() -> None:
    key = new_key(READ, expires_at=timezone.now() + timedelta(milliseconds=300))
    while ask(key).status == 200:  # what is remembered of it does not outlive it
        pass
    assert stored(key).expires_at <= timezone.now()  # type: ignore[operator]
    assert ask(key).code == "unauthorized"
    assert ask(new_key(READ, expires_at=timezone.now())).code == "unauthorized"


def test_the_key_of_an_inactive_owner_is_unauthorized() -> None:
    assert ask(new_key(ADMIN, owner=new_owner(is_active=False))).code == "unauthorized"
    assert ask(new_key(ADMIN, owner=new_owner())).status == 200


# --- Where the API is open --------------------------------------------------------------------------
def test_open_api_accepts_every_client_and_ignores_other_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    assert Api().get(WALLETS).status == 200
    assert Api().get(WALLETS, Authorization="Basic YTpi").status == 200
    assert Api().get(WALLETS, Authorization="Bearer of.another.service").status == 200


def test_a_key_that_is_sent_to_an_open_api_counts(settings: LazySettings, unchanged: Unchanged) -> None:
    settings.API_ACCESS = "open"
    wallet = Api().open()
    assert ask(keys.new_text()).code == "unauthorized"
    with unchanged(wallet):
        assert Api(key=new_key(READ)).deposit(wallet, 1).code == "forbidden"
        assert Api(key=new_key(ADMIN, owner=new_owner(), is_restricted=True)).deposit(wallet, 1).status == 404


# --- Revoked ----------------------------------------------------------------------------------------
def test_a_revoked_key_is_unauthorized_here_at_once() -> None:
    key = new_key(READ)
    assert ask(key).status == 200
    assert run("revoke_api_key", prefix_of(key)) == f"Revoked {prefix_of(key)}\n"
    assert ask(key).code == "unauthorized"
    revoked_at = stored(key).revoked_at
    with pytest.raises(CommandError, match="no key"):
        run("revoke_api_key", prefix_of(key))
    assert stored(key).revoked_at == revoked_at


def test_what_is_no_key_cannot_be_revoked() -> None:
    with pytest.raises(CommandError, match="no key") as error:
        run("revoke_api_key", "nosuchkey")
    assert error.value.returncode == 2


@pytest.mark.slow
def test_a_request_five_seconds_after_the_revocation_is_refused_in_every_process() -> None:
    key = new_key(READ)
    with running_service(API_ACCESS="key", WORKERS="2") as address:
        apis = [Api(OverHttp(address), key) for _ in range(8)]  # some of them with each process
        assert {api.get(WALLETS).status for api in apis} == {200}
        keys.revoke(prefix_of(key))
        revoked_at = time.monotonic()
        while apis:
            sent_at = time.monotonic()
            if (answer := apis[-1].get(WALLETS)).status == 401:
                apis.pop().sender.connection.close()  # type: ignore[attr-defined]
            else:
                assert answer.status == 200
                assert sent_at - revoked_at < 5
                time.sleep(0.02)


# --- Used -------------------------------------------------------------------------------------------
def until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_use_of_a_key_is_noted_but_not_that_of_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = new_key(READ), new_key(READ)
    ask(other_secret(unused))
    ask(used)
    until(lambda: stored(used).last_used_at)
    assert stored(unused).last_used_at is None
    first = stored(used).last_used_at
    # Within a minute it is not noted again; another key's note, which comes later, is there.
    ask(used)
    ask(unused)
    until(lambda: stored(unused).last_used_at)
    assert stored(used).last_used_at == first
    monkeypatch.setattr(keys, "LAST_USE_INTERVAL_SECONDS", 0.0)
    ask(used)
    until(lambda: stored(used).last_used_at != first)


def test_failed_record_of_last_use_delays_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost, noted = new_key(READ), new_key(READ)
    note = keys._NOTE
    monkeypatch.setattr(keys, "_NOTE", "SELECT 1 FROM no_such_table WHERE %s IS NULL")
    assert ask(lost).status == 200
    until(lambda: "was not recorded" in caplog.text)
    monkeypatch.setattr(keys, "_NOTE", note)
    assert ask(noted).status == 200
    until(lambda: stored(noted).last_used_at)
    assert stored(lost).last_used_at is None


# --- What it costs ----------------------------------------------------------------------------------
Looks = list[set[str]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """What each look at the table was for."""
    made: Looks = []
    look = keys._look

    def noted(prefixes: Any) -> Any:
        made.append(set(prefixes))
        return look(prefixes)

    monkeypatch.setattr(keys, "_look", noted)
    return made


def test_a_key_is_looked_up_once_for_many_requests_and_so_is_a_wrong_one(looks: Looks) -> None:
    key, unknown = new_key(READ), keys.new_text()
    for _ in range(5):
        assert (ask(key).status, ask(other_secret(key)).status, ask(unknown).status) == (200, 401, 401)
    assert looks == [{prefix_of(key)}, {prefix_of(unknown)}]


def test_what_is_not_even_a_key_is_not_looked_up(looks: Looks) -> None:
    assert ask("wk_abc").code == "unauthorized"
    assert looks == []


def test_what_is_remembered_is_looked_up_again_in_time(monkeypatch: pytest.MonkeyPatch, looks: Looks) -> None:
    monkeypatch.setattr(keys, "CACHE_SECONDS", 0.0)
    key = new_key(READ)
    assert (ask(key).status, ask(key).status, len(looks)) == (200, 200, 2)
    ApiKey.objects.filter(prefix=prefix_of(key)).update(revoked_at=timezone.now())  # by another process
    assert ask(key).code == "unauthorized"


def test_invented_keys_fill_no_memory_and_block_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_CACHED_PREFIXES", 10)
    key = new_key(READ)
    for _ in range(30):
        assert ask(keys.new_text()).code == "unauthorized"
        assert len(keys._known) <= 10
    assert ask(key).status == 200


def test_keys_that_come_together_share_a_look(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = keys._look

    def slow(prefixes: Any) -> Any:
        time.sleep(0.2)
        return counted(prefixes)

    monkeypatch.setattr(keys, "_look", slow)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(keys.principal_of, [keys.new_text() for _ in range(20)]))
    assert found == [None] * 20
    assert len(looks) < 20


def test_while_the_database_is_away_a_key_that_is_not_remembered_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    key = new_key(READ)
    settings.OPERATION_DEADLINE = 0.3

    def away(prefixes: Any) -> Any:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "_look", away)
        answer = ask(key)
    assert (answer.status, answer.code) == (503, "unavailable")
    assert ask(key).status == 200


@pytest.fixture
def keyed_service() -> Iterator[str]:
    with running_service(API_ACCESS="key", WORKERS="1") as address:
        yield address


@pytest.mark.slow
def test_the_service_as_it_runs_takes_keys_and_probes_need_none(keyed_service: str) -> None:
    sender = OverHttp(keyed_service)
    with closing(sender.connection):
        assert Api(sender).get(WALLETS).code == "unauthorized"
        wallet = Api(sender, new_key(WRITE, DEPOSIT)).open(deposit="5")
        assert Api(sender, new_key(READ)).balance(wallet) == "5.00"
        assert sender.send("GET", "/readyz").status == 200
        assert sender.send("GET", "/api/schema").status == 200
