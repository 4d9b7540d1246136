"""The hash chain: each operation carries a hash over itself and its predecessor in the wallet."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.postgres import program
from tests.support.chains import lines
from tests.support.client import Api
from tests.support.cluster import cluster
from wallets.ledger import chain, inbox
from wallets.ledger.tables import _NAMES, Record

SAFE = 2**53 - 1
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.integers(-SAFE, SAFE) | st.floats(-SAFE, SAFE)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def test_operations_and_wallet_form_a_hash_chain(api: Api) -> None:
    one, other = api.open(overdraftLimit="5"), api.open()
    api.deposit(
        one, "100.10", description="tab\there, \\N and a\nline", metadata={"b": [1.50, None], "a": "é"}
    )
    api.post(f"/wallets/{one}/operation", {"operationType": "WITHDRAW", "amount": "1000"})  # refused
    hold = api.post(f"/wallets/{one}/holds", {"amount": "7", "expiresAt": "2199-01-01T00:00:00.25Z"}).json
    api.post(f"/holds/{hold['id']}/capture", {"amount": "6"})
    api.post("/transfers", {"sourceWalletId": one, "targetWalletId": other, "amount": "3"})
    with psycopg.connect(cluster.url("postgres")) as database:
        for wallet_id, number in ((one, 5), (other, 1)):
            operations = lines(database, wallet_id)
            assert len(operations) == number
            previous = chain.BEGINNING
            for stored, line in operations:
                assert sha256(previous + line).digest() == stored, line
                previous = stored
            [(head,)] = database.execute("SELECT hash FROM wallet WHERE id = %s", [wallet_id]).fetchall()
            assert head == previous


def test_wallet_without_operations_has_the_first_hash(api: Api) -> None:
    with psycopg.connect(cluster.url("postgres")) as database:
        [(head,)] = database.execute("SELECT hash FROM wallet WHERE id = %s", [api.open()]).fetchall()
    assert head == chain.BEGINNING


def test_chain_covers_every_column_except_the_hash() -> None:
    assert set(chain.COLUMNS) == set(_NAMES) - {"hash"}


@pytest.fixture(scope="module")
def database() -> Any:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.dictionaries(TEXTS, JSON, max_size=4))
def test_json_is_written_as_postgresql_writes_it(database: psycopg.Connection, value: dict[str, Any]) -> None:
    [(text,)] = database.execute("SELECT %s::jsonb::text", [json.dumps(value)]).fetchall()
    assert chain.jsonb(value) == text
    assert chain.jsonb(json.loads(text)) == text


TIMES = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9.5))]),
)
AMOUNTS = st.decimals(-(10**23), 10**23, places=4) | st.integers(-(10**6), 10**6).map(Decimal)
IDS = st.uuids()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_operation_is_written_as_copy_writes_it(database: psycopg.Connection, data: st.DataObject) -> None:
    draw = data.draw
    record = Record(
        id=draw(IDS),
        wallet_id=draw(IDS),
        type="DEPOSIT",
        amount=draw(AMOUNTS),
        status="COMPLETED",
        description=draw(TEXTS),
        metadata=draw(st.dictionaries(TEXTS, JSON, max_size=2)),
        actor=draw(TEXTS),
        created_at=draw(TIMES),
        sequence=draw(st.none() | st.integers(1, 2**63 - 1)),
        balance_after=draw(st.none() | AMOUNTS),
        reason=draw(st.none() | st.just("insufficient_funds")),
        idempotency_key=draw(st.none() | TEXTS),
        transfer_id=draw(st.none() | IDS),
        counterparty_id=draw(st.none() | IDS),
        hold_id=draw(st.none() | IDS),
        reverses_id=draw(st.none() | IDS),
        expires_at=draw(st.none() | TIMES),
        takes_rest=draw(st.none() | st.booleans()),
        accepted_at=draw(st.none() | TIMES),
        reference=draw(TEXTS),
    )
    values = {name: getattr(record, name) for name in chain.COLUMNS}
    values["metadata"] = json.dumps(record.metadata)
    database.execute("CREATE TEMPORARY TABLE IF NOT EXISTS line AS SELECT * FROM operation WITH NO DATA")
    database.execute("TRUNCATE line")
    places = ", ".join(["%s"] * len(values))
    database.execute(
        f"INSERT INTO line ({', '.join(values)}) VALUES ({places})".encode(), list(values.values())
    )
    statement = f"COPY (SELECT {', '.join(chain.COLUMNS)} FROM line) TO STDOUT"
    with database.cursor() as cursor, cursor.copy(statement.encode()) as copied:
        [written] = [bytes(line) for line in copied]
    assert chain.canonical(record) == chain.hashed(written)


def test_record_read_back_has_the_same_hash(api: Api) -> None:
    """An inbox entry goes through the database before it is chained."""
    wallet_id = api.open()
    body = {"operationType": "DEPOSIT", "amount": "1", "metadata": {"n": [1.0, -0.0, 1e-7, 0.1]}}
    answer = api.post(f"/wallets/{wallet_id}/operation", body)
    assert answer.status == 201
    with psycopg.connect(cluster.url("postgres")) as database:
        [(stored, line)] = lines(database, wallet_id)
    assert chain.link(chain.BEGINNING, line) == stored
    assert UUID(line.split(b"\t")[1].decode()) == UUID(wallet_id)


CHANGELOG = Path(__file__).parents[2] / "liquibase/changes/011-hash-chain.sql"


@pytest.mark.slow
def test_changelog_chains_the_existing_operations(api: Api) -> None:
    one, other = api.open(deposit="100"), api.open(deposit="0.5")
    api.deposit(
        one, "1", key="k\\", description="\\N\t\b\f\n\r\v\\", metadata={"\n": "\\t", "é": [1.50, -1e-9]}
    )
    api.withdraw(one, "1000")
    api.transfer(one, other, "3")
    api.void(api.hold(one, "2", expiresAt="2199-01-01T00:00:00.250Z").json["id"])
    api.post(f"/wallets/{one}/operation", {"operationType": "DEPOSIT", "amount": "1"}, prefer="respond-async")
    while inbox.drain(100):
        pass
    _, changeset, _ = CHANGELOG.read_text().split("--changeset ")
    with psycopg.connect(cluster.url("walletsvc_owner")) as owner:
        before = {wallet_id: lines(owner, wallet_id) for wallet_id in (one, other)}
        assert len(before[one]) == 7
        for table in ("operation", "wallet"):
            owner.execute(f"ALTER TABLE {table} DROP COLUMN hash".encode())
        owner.execute(changeset.partition("\n")[2].encode())
        for wallet_id, operations in before.items():
            assert lines(owner, wallet_id) == operations
            [(head,)] = owner.execute("SELECT hash FROM wallet WHERE id = %s", [wallet_id]).fetchall()
            assert head == operations[-1][0]
        owner.rollback()


def test_documented_psql_script_follows_a_chain(api: Api) -> None:
    """Run the script in docs/reliability.md."""
    wallet_id = api.open(deposit="100")
    api.deposit(wallet_id, "1", description="tab\there", metadata={"a": "\\"})
    api.withdraw(wallet_id, "1000")
    document = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
    [script] = re.findall(r"```sh\n(PGTZ.*?)```", document, re.DOTALL)
    path = f"{Path(program('psql')).parent}:{os.environ['PATH']}"
    given = {"DATABASE_URL": cluster.url("walletsvc_app"), "WALLET": wallet_id, "PATH": path}
    output = subprocess.run(
        ["bash", "-c", script], env=given, capture_output=True, text=True, check=True
    ).stdout
    with psycopg.connect(cluster.url("postgres")) as database:
        [(head,)] = database.execute("SELECT hash FROM wallet WHERE id = %s", [wallet_id]).fetchall()
    assert output == f"{head.hex()}\n"
