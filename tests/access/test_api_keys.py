"""API keys: creation, authentication, expiry, revocation, last use, and the cost of unknown keys."""

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
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


def list_wallets(key: str) -> Answer:
    return Api(key=key).get(WALLETS)


def stored(key: str) -> ApiKey:
    return ApiKey.objects.get(prefix=prefix_of(key))


def run(command: str, *arguments: str) -> str:
    output = StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue()


# --- Creation ---------------------------------------------------------------------------------------
def test_new_key_works_and_only_its_hash_is_stored() -> None:
    text = run("create_api_key", "--name", "till", "--scope", READ).strip()
    assert KEY.fullmatch(text)
    assert list_wallets(text).status == 200
    secret = text.split("_", 2)[2]
    key = stored(text)
    assert bytes(key.digest) == sha256(secret.encode()).digest()
    assert secret not in str(ApiKey.objects.filter(prefix=key.prefix).values())


def test_new_keys_are_unique() -> None:
    assert len({keys.new_text() for _ in range(1000)}) == 1000


def test_key_has_all_requested_properties() -> None:
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
    ("arguments", "message"),
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
def test_invalid_key_properties_are_refused(arguments: list[str], message: str) -> None:
    before = ApiKey.objects.count()
    with pytest.raises(CommandError, match=message):
        run("create_api_key", *arguments)
    assert ApiKey.objects.count() == before


# --- Creation from the environment ------------------------------------------------------------------
FROM_ENVIRONMENT = ("create_api_key", "--name", "first", "--scope", ADMIN, "--from-environment", "FIRST_KEY")


def test_key_from_environment_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = keys.new_text()
    monkeypatch.setenv("FIRST_KEY", text)
    assert run(*FROM_ENVIRONMENT) == f"Created the API key {prefix_of(text)} from FIRST_KEY\n"
    assert list_wallets(text).status == 200
    assert run(*FROM_ENVIRONMENT) == ""
    keys.revoke(prefix_of(text))
    assert run(*FROM_ENVIRONMENT) == ""
    assert list_wallets(text).code == "unauthorized"  # the command does not restore a revoked key


def test_empty_variable_creates_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_malformed_key_from_environment_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    before = ApiKey.objects.count()
    monkeypatch.setenv("FIRST_KEY", text)
    with pytest.raises(CommandError, match="FIRST_KEY: a key is") as error:
        run(*FROM_ENVIRONMENT)
    assert text.strip() not in str(error.value)
    assert ApiKey.objects.count() == before


def test_key_with_a_used_prefix_is_refused() -> None:
    text = new_key(READ)
    other = f"wk_{prefix_of(text)}_{'x' * 43}"
    with pytest.raises(ValueError, match="another key"):
        keys.make(other, name="x", scopes=[ADMIN])
    assert (list_wallets(text).status, stored(text).scopes) == (200, [READ])


# --- Authentication ---------------------------------------------------------------------------------
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
def test_invalid_key_is_unauthorized(header: Callable[[str], str], unchanged: Unchanged) -> None:
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


def test_authorization_scheme_is_case_insensitive() -> None:
    key = new_key(READ)
    assert Api().get(WALLETS, Authorization=f"bearer {key}").status == 200


def test_key_is_unauthorized_from_its_expiry_on() -> None:
    key = new_key(READ, expires_at=timezone.now() + timedelta(milliseconds=300))
    while list_wallets(key).status == 200:  # the cache does not prolong it
        pass
    assert stored(key).expires_at <= timezone.now()  # type: ignore[operator]
    assert list_wallets(key).code == "unauthorized"
    assert list_wallets(new_key(READ, expires_at=timezone.now())).code == "unauthorized"


def test_key_of_an_inactive_owner_is_unauthorized() -> None:
    assert list_wallets(new_key(ADMIN, owner=new_owner(is_active=False))).code == "unauthorized"
    assert list_wallets(new_key(ADMIN, owner=new_owner())).status == 200


# --- Open API ---------------------------------------------------------------------------------------
def test_open_api_accepts_every_client_and_ignores_other_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    assert Api().get(WALLETS).status == 200
    assert Api().get(WALLETS, Authorization="Basic YTpi").status == 200
    assert Api().get(WALLETS, Authorization="Bearer of.another.service").status == 200


def test_key_sent_to_an_open_api_decides_permissions(settings: LazySettings, unchanged: Unchanged) -> None:
    settings.API_ACCESS = "open"
    wallet = Api().open()
    assert list_wallets(keys.new_text()).code == "unauthorized"
    with unchanged(wallet):
        assert Api(key=new_key(READ)).deposit(wallet, 1).code == "forbidden"
        assert Api(key=new_key(ADMIN, owner=new_owner(), is_restricted=True)).deposit(wallet, 1).status == 404


# --- Revocation -------------------------------------------------------------------------------------
def test_revoked_key_is_unauthorized_at_once_in_its_process() -> None:
    key = new_key(READ)
    assert list_wallets(key).status == 200
    assert run("revoke_api_key", prefix_of(key)) == f"Revoked {prefix_of(key)}\n"
    assert list_wallets(key).code == "unauthorized"
    revoked_at = stored(key).revoked_at
    with pytest.raises(CommandError, match="no key"):
        run("revoke_api_key", prefix_of(key))
    assert stored(key).revoked_at == revoked_at


def test_revoking_an_unknown_key_fails() -> None:
    with pytest.raises(CommandError, match="no key") as error:
        run("revoke_api_key", "nosuchkey")
    assert error.value.returncode == 2


@pytest.mark.slow
def test_revoked_key_is_refused_everywhere_within_five_seconds() -> None:
    key = new_key(READ)
    with running_service(API_ACCESS="key", WORKERS="2") as address:
        apis = [Api(OverHttp(address), key) for _ in range(8)]  # each process has some of them
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


# --- Last use ---------------------------------------------------------------------------------------
def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_last_use_is_recorded_for_valid_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = new_key(READ), new_key(READ)
    list_wallets(other_secret(unused))
    list_wallets(used)
    wait_until(lambda: stored(used).last_used_at)
    assert stored(unused).last_used_at is None
    first = stored(used).last_used_at
    # Within a minute it is not recorded again. The later use of another key shows that the thread has run.
    list_wallets(used)
    list_wallets(unused)
    wait_until(lambda: stored(unused).last_used_at)
    assert stored(used).last_used_at == first
    monkeypatch.setattr(keys, "LAST_USE_INTERVAL_SECONDS", 0.0)
    list_wallets(used)
    wait_until(lambda: stored(used).last_used_at != first)


def test_failed_record_of_last_use_delays_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost, recorded = new_key(READ), new_key(READ)
    statement = keys._RECORD_LAST_USE
    monkeypatch.setattr(keys, "_RECORD_LAST_USE", "SELECT 1 FROM no_such_table WHERE %s IS NULL")
    assert list_wallets(lost).status == 200
    wait_until(lambda: "was not recorded" in caplog.text)
    monkeypatch.setattr(keys, "_RECORD_LAST_USE", statement)
    assert list_wallets(recorded).status == 200
    wait_until(lambda: stored(recorded).last_used_at)
    assert stored(lost).last_used_at is None


# --- Cost -------------------------------------------------------------------------------------------
Queries = list[set[str]]


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Queries:
    """The prefixes of each query of the table."""
    made: Queries = []
    load = keys._load

    def load_and_record(prefixes: Any) -> Any:
        made.append(set(prefixes))
        return load(prefixes)

    monkeypatch.setattr(keys, "_load", load_and_record)
    return made


def test_valid_and_unknown_keys_are_looked_up_once(queries: Queries) -> None:
    key, unknown = new_key(READ), keys.new_text()
    for _ in range(5):
        assert (
            list_wallets(key).status,
            list_wallets(other_secret(key)).status,
            list_wallets(unknown).status,
        ) == (200, 401, 401)
    assert queries == [{prefix_of(key)}, {prefix_of(unknown)}]


def test_malformed_key_is_not_looked_up(queries: Queries) -> None:
    assert list_wallets("wk_abc").code == "unauthorized"
    assert queries == []


def test_cached_key_is_looked_up_again_after_expiry(
    monkeypatch: pytest.MonkeyPatch, queries: Queries
) -> None:
    monkeypatch.setattr(keys, "CACHE_SECONDS", 0.0)
    key = new_key(READ)
    assert (list_wallets(key).status, list_wallets(key).status, len(queries)) == (200, 200, 2)
    ApiKey.objects.filter(prefix=prefix_of(key)).update(revoked_at=timezone.now())  # by another process
    assert list_wallets(key).code == "unauthorized"


def test_invented_keys_fill_no_memory_and_block_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_CACHED_PREFIXES", 10)
    key = new_key(READ)
    for _ in range(30):
        assert list_wallets(keys.new_text()).code == "unauthorized"
        assert len(keys._cache) <= 10
    assert list_wallets(key).status == 200


def test_concurrent_keys_share_a_query(queries: Queries, monkeypatch: pytest.MonkeyPatch) -> None:
    load = keys._load

    def load_slowly(prefixes: Any) -> Any:
        time.sleep(0.2)
        return load(prefixes)

    monkeypatch.setattr(keys, "_load", load_slowly)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(keys.principal_of, [keys.new_text() for _ in range(20)]))
    assert found == [None] * 20
    assert len(queries) < 20


def test_uncached_key_is_unavailable_without_the_database(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    key = new_key(READ)
    settings.OPERATION_DEADLINE = 0.3

    def fail(prefixes: Any) -> Any:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "_load", fail)
        answer = list_wallets(key)
    assert (answer.status, answer.code) == (503, "unavailable")
    assert list_wallets(key).status == 200


@pytest.fixture
def keyed_service() -> Iterator[str]:
    with running_service(API_ACCESS="key", WORKERS="1") as address:
        yield address


@pytest.mark.slow
def test_running_service_requires_keys_except_for_probes(keyed_service: str) -> None:
    sender = OverHttp(keyed_service)
    with closing(sender.connection):
        assert Api(sender).get(WALLETS).code == "unauthorized"
        wallet = Api(sender, new_key(WRITE, DEPOSIT)).open(deposit="5")
        assert Api(sender, new_key(READ)).balance(wallet) == "5.00"
        assert sender.send("GET", "/readyz").status == 200
        assert sender.send("GET", "/api/schema").status == 200
