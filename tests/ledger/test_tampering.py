"""A superuser changes the ledger in the database: verification finds the change and names its place."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from threading import Timer
from uuid import uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.core.management import CommandError, call_command

from local.postgres import DATABASE, Cluster, program
from local.processes import run as run_program
from tests.support.chains import chain_anew, superuser
from tests.support.client import Api
from tests.support.cluster import cluster
from wallets.ledger import checkpoints, verify
from wallets.ledger.checkpoints import Comparison
from wallets.ledger.consistent_read import NOTHING, Snapshot
from wallets.ledger.verify import Verification
from wallets.models import Operation

COLUMNS = [str(field.column) for field in Operation._meta.local_concrete_fields]
OTHERS = ", ".join(column for column in COLUMNS if column not in ("id", "sequence", "created_at", "hash"))


@pytest.fixture(name="superuser")
def _superuser() -> Iterator[psycopg.Connection]:
    with superuser() as database:
        yield database


class TamperedLedger:
    """A wallet with several operations and another wallet. `remove` deletes both after the test."""

    def __init__(self, api: Api, superuser: psycopg.Connection) -> None:
        self.superuser = superuser
        self.wallet, self.other = sorted([api.open(deposit="100"), api.open(deposit="100")])
        api.deposit(self.wallet, "1", key="a", description="two", metadata={"a": 1})
        api.transfer(self.wallet, self.other, "5")
        api.withdraw(self.wallet, "1000")  # refused
        api.hold(self.wallet, "3")
        api.deposit(self.wallet, "2")
        self.ids = [row[0] for row in self.rows("id::text")]

    def rows(self, columns: str) -> list[tuple[object, ...]]:
        query = f"SELECT {columns} FROM operation WHERE wallet_id = %s ORDER BY created_at"
        return self.superuser.execute(query.encode(), [self.wallet]).fetchall()

    def change(self, statement: str, *parameters: object) -> None:
        assert self.superuser.execute(statement.encode(), parameters).rowcount == 1

    def findings(self, since: Snapshot = NOTHING) -> str:
        found = Verification(since).check([self.wallet, self.other])  # type: ignore[list-item]
        return "\n".join(f"{difference.wallet_id} {difference.what}" for difference in found)

    def insert_copy(self, later: str) -> str:
        """Insert a copy of the refused operation, moved by the interval `later`. Return its id."""
        new = str(uuid4())
        self.change(
            f"INSERT INTO operation (id, created_at, hash, {OTHERS}) SELECT %s, created_at + %s::interval,"
            f" sha256('forged'), {OTHERS.replace('idempotency_key', 'NULL')} FROM operation WHERE id = %s",
            new,
            later,
            self.ids[3],
        )
        return new

    def remove(self) -> None:
        own_wallets = [self.wallet, self.other]
        for table in ("hold", "operation", "operation_id", "wallet_change"):
            self.superuser.execute(f"DELETE FROM {table} WHERE wallet_id = ANY(%s)".encode(), [own_wallets])
        self.superuser.execute("DELETE FROM wallet WHERE id = ANY(%s)", [own_wallets])

    @contextmanager
    def without_constraints(self, table: str) -> Iterator[None]:
        """Drop the table's constraints in the block. Afterwards, remove both wallets and restore them."""
        checks = self.superuser.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype = 'c'",
            [table],
        ).fetchall()
        required = self.superuser.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnotnull AND attnum > 0"
            " AND attname NOT IN ('id', 'wallet_id')",
            [table],
        ).fetchall()
        for name, _ in checks:
            self.superuser.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
        for (name,) in required:
            self.superuser.execute(f"ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL".encode())
        try:
            yield
        finally:
            self.remove()
            for name, definition in checks:
                self.superuser.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}".encode())
            for (name,) in required:
                self.superuser.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL".encode())


@pytest.fixture
def ledger(api: Api, superuser: psycopg.Connection) -> Iterator[TamperedLedger]:
    ledger = TamperedLedger(api, superuser)
    assert ledger.findings() == ""
    yield ledger
    ledger.remove()


# --- The hash chain ---------------------------------------------------------------------------------
CHANGED_VALUES = {
    "amount": "amount + 1",
    "balance_after": "balance_after + 1",
    "sequence": "sequence + 100",
    "type": "'WITHDRAW'",
    "idempotency_key": "'b'",
    "reference": "'order-8'",
    "description": "'three'",
    "metadata": """'{"a": 2}'""",
    "actor": "'forger'",
    "accepted_at": "created_at",
    "created_at": "created_at + interval '1 microsecond'",
    "takes_rest": "true",
    "id": "gen_random_uuid()",
    "hash": "sha256(hash)",
}


@pytest.mark.parametrize("column", CHANGED_VALUES)
def test_changed_column_is_found_and_its_operation_named(ledger: TamperedLedger, column: str) -> None:
    ledger.change(f"UPDATE operation SET {column} = {CHANGED_VALUES[column]} WHERE id = %s", ledger.ids[1])
    found = ledger.findings()
    named = str(ledger.rows("id::text")[1][0])
    assert f"{ledger.wallet} operation {named} does not follow on {ledger.ids[0]}" in found
    # The next operation follows on the stored hash, so it is named only if the hash was changed.
    assert (f"operation {ledger.ids[2]} does not follow" in found) == (column == "hash")


@pytest.mark.parametrize(
    "column", ["status", "reason", "transfer_id", "counterparty_id", "hold_id", "reverses_id"]
)
def test_changed_column_with_a_constraint_is_found(ledger: TamperedLedger, column: str) -> None:
    value = "gen_random_uuid()" if column.endswith("_id") else "'OTHER'"
    with ledger.without_constraints("operation"):
        ledger.change(f"UPDATE operation SET {column} = {value} WHERE id = %s", ledger.ids[1])
        assert f"operation {ledger.ids[1]} does not follow on {ledger.ids[0]}" in ledger.findings()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("hash", value) for value in ("NULL", "''", "hash || 'a'")),
        *((column, value) for column in ("amount", "balance_after") for value in ("NULL", "'NaN'")),
        *((column, value) for column in ("created_at", "accepted_at") for value in ("NULL", "'infinity'")),
        ("type", "NULL"),
        ("metadata", "NULL"),
    ],
)
def test_invalid_value_is_named_and_hides_no_other_finding(
    ledger: TamperedLedger, column: str, value: str
) -> None:
    with ledger.without_constraints("operation"):
        ledger.change("UPDATE wallet SET balance = balance + 1 WHERE id = %s", ledger.other)
        # The change of `actor` makes a difference even if the column has this value already.
        ledger.change(f"UPDATE operation SET actor = 'x', {column} = {value} WHERE id = %s", ledger.ids[1])
        found = ledger.findings()
        assert f"{ledger.wallet} operation {ledger.ids[1]} does not follow on" in found
        assert f"{ledger.other} balance 106.0000, the ledger says 105.0000" in found


@pytest.mark.parametrize("value", ["NULL", "'NaN'"])
def test_invalid_amount_is_found_after_hashes_were_recomputed(ledger: TamperedLedger, value: str) -> None:
    with ledger.without_constraints("operation"):
        ledger.change(f"UPDATE operation SET amount = {value} WHERE id = %s", ledger.ids[1])
        chain_anew(ledger.superuser, ledger.wallet)
        found = ledger.findings()
        assert f"{ledger.wallet} operation {ledger.ids[1]}: sequence 2, amount " in found
        assert "not all are numbers" in found


@pytest.mark.parametrize("value", ["NULL", "'NaN'"])
@pytest.mark.parametrize("column", ["balance", "held", "sequence", "hash"])
def test_invalid_value_of_a_wallet_is_found(
    ledger: TamperedLedger, column: str, value: str, api: Api
) -> None:
    if value == "'NaN'" and column in ("sequence", "hash"):
        value = "'0'"
    _, since = verify.now()
    api.deposit(ledger.wallet, "1")
    with ledger.without_constraints("wallet"):
        ledger.change(f"UPDATE wallet SET {column} = {value} WHERE id = %s", ledger.wallet)
        assert f"{ledger.wallet} {column} " in ledger.findings()
        assert f"{ledger.wallet} {column} " in ledger.findings(since)


def test_incremental_check_continues_from_an_operation_without_hash(ledger: TamperedLedger, api: Api) -> None:
    _, since = verify.now()
    api.deposit(ledger.wallet, "1")
    with ledger.without_constraints("operation"):
        ledger.change("UPDATE operation SET hash = NULL, balance_after = 'NaN' WHERE id = %s", ledger.ids[-1])
        assert f"{ledger.wallet} operation " in ledger.findings(since)


@pytest.mark.parametrize(
    "change",
    [
        "expires_at = now()",
        "description = 'x'",
        "created_at = created_at - interval '1 day'",
        "status = 'EXPIRED', ended_at = now()",
        "status = 'VOIDED', ended_at = now()",
    ],
)
def test_changed_or_ended_hold_is_found(ledger: TamperedLedger, change: str) -> None:
    ledger.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", ledger.wallet)
    ledger.change("UPDATE wallet SET held = 0, next_expiry_at = NULL WHERE id = %s", ledger.wallet)
    assert f"{ledger.wallet} hold {ledger.ids[4]} is " in ledger.findings()


@pytest.mark.parametrize("change", ["ended_at = ended_at - interval '1 day'", "operation_id = id"])
def test_changed_end_of_a_captured_hold_is_found(ledger: TamperedLedger, api: Api, change: str) -> None:
    assert api.capture(str(ledger.ids[4]), amount="1").status == 201
    assert ledger.findings() == ""
    ledger.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", ledger.wallet)
    assert f"{ledger.wallet} hold {ledger.ids[4]} is not as operation " in ledger.findings()


@pytest.mark.parametrize(
    "change",
    [
        "ended_at = now()",
        "captured_amount = 1",
        "amount = NULL",
        "status = 'VOIDED'",
        "status = 'EXPIRED', expires_at = now(), ended_at = created_at",
        "status = 'CAPTURED', ended_at = now(), captured_amount = 1",
    ],
)
def test_invalid_end_of_a_hold_is_found(ledger: TamperedLedger, change: str) -> None:
    with ledger.without_constraints("hold"):
        ledger.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", ledger.wallet)
        found = ledger.findings()
        assert f"{ledger.wallet} hold {ledger.ids[4]} is " in found
        assert ", and its end says otherwise" in found


def test_expiry_before_its_time_is_found_despite_a_later_wallet_time(
    ledger: TamperedLedger, api: Api
) -> None:
    held = api.hold(ledger.wallet, "3", expiresAt="2199-01-01T00:00:00Z").json["id"]
    ledger.change("UPDATE hold SET status = 'EXPIRED', ended_at = expires_at WHERE id = %s", held)
    ledger.change(
        "UPDATE wallet SET held = 3, next_expiry_at = NULL, updated_at = '2199-01-01' WHERE id = %s",
        ledger.wallet,
    )
    assert f"{ledger.wallet} hold {held} is EXPIRED, but expires at 2199-01-01" in ledger.findings()


@pytest.mark.parametrize("transaction", ["0", None])
def test_operation_without_transaction_is_found(ledger: TamperedLedger, transaction: str | None) -> None:
    """The check selects operations by transaction; without this finding, a missing hold stays unseen."""
    with ledger.without_constraints("operation"):
        ledger.change("UPDATE operation SET transaction_id = %s WHERE id = %s", transaction, ledger.ids[4])
        ledger.change("DELETE FROM hold WHERE id = %s", ledger.ids[4])
        ledger.change("UPDATE wallet SET held = 0, next_expiry_at = NULL WHERE id = %s", ledger.wallet)
        assert f"{ledger.wallet} operation {ledger.ids[4]} is of no transaction" in ledger.findings()


@pytest.mark.parametrize("table", ["wallet", "hold"])
def test_duplicate_row_is_found(ledger: TamperedLedger, table: str) -> None:
    column = "id" if table == "wallet" else "wallet_id"
    with changed_schema(f"CREATE TABLE duplicate_rows () INHERITS ({table})", "DROP TABLE duplicate_rows"):
        ledger.change(
            f"INSERT INTO duplicate_rows SELECT * FROM ONLY {table} WHERE {column} = %s", ledger.wallet
        )
        assert "is there 2 times" in ledger.findings()
        assert f"{table}: no plain tables" in refused("verify_ledger")


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("ALTER TABLE wallet ENABLE ROW LEVEL SECURITY", "ALTER TABLE wallet DISABLE ROW LEVEL SECURITY"),
        ("CREATE RULE lie AS ON DELETE TO operation DO INSTEAD NOTHING", "DROP RULE lie ON operation"),
    ],
)
def test_tables_that_may_hide_rows_are_refused(change: str, undo: str) -> None:
    with changed_schema(change, undo):
        assert "no plain tables" in refused("verify_ledger")


@contextmanager
def changed_schema(change: str, undo: str) -> Iterator[None]:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as superuser:
        superuser.execute(change.encode())
        try:
            yield
        finally:
            superuser.execute(undo.encode())


def test_wallet_with_the_lowest_id_is_checked(ledger: TamperedLedger) -> None:
    lowest_id = "00000000-0000-0000-0000-000000000000"
    ledger.change("INSERT INTO wallet (id, currency, balance) VALUES (%s, 'EUR', 1000)", lowest_id)
    try:
        assert f"{lowest_id} balance 1000.0000, the ledger says 0.0000" in differences("verify_ledger")
    finally:
        ledger.change("DELETE FROM wallet WHERE id = %s", lowest_id)


def test_extreme_sequence_is_named(ledger: TamperedLedger, keys: tuple[Path, Path], tmp_path: Path) -> None:
    ledger.change("UPDATE wallet SET sequence = 9223372036854775807 WHERE id = %s", ledger.wallet)
    assert f"{ledger.wallet} sequence 9223372036854775807, " in differences("verify_ledger")
    run("checkpoint", tmp_path / "checkpoint", "--key", keys[0])


def test_check_waits_for_a_schema_change(ledger: TamperedLedger) -> None:
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("LOCK TABLE operation IN ACCESS EXCLUSIVE MODE")
        Timer(1, other.rollback).start()
        assert ledger.findings() == ""


def test_missing_wallet_is_found_by_its_remaining_rows(ledger: TamperedLedger) -> None:
    run("verify_ledger")
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as replica:
        replica.execute("SET session_replication_role = replica")  # foreign keys are not checked
        replica.execute("DELETE FROM wallet WHERE id = %s", [ledger.wallet])
    assert f"{ledger.wallet} is missing, but rows of it exist" in differences("verify_ledger")


def test_every_column_of_an_operation_is_tested() -> None:
    guarded = {"status", "reason", "transfer_id", "counterparty_id", "hold_id", "reverses_id"}
    elsewhere = {"wallet_id", "expires_at", "transaction_id"}  # moved; holds; not in the chain
    assert set(COLUMNS) == CHANGED_VALUES.keys() | guarded | elsewhere


@pytest.mark.parametrize("place", range(6))
def test_deleted_operation_is_found_at_its_place(ledger: TamperedLedger, place: int) -> None:
    ledger.change("DELETE FROM operation WHERE id = %s", ledger.ids[place])
    before = ledger.ids[place - 1] if place else "the beginning"
    if place == 5:
        assert f"{ledger.wallet} hash is not that of {ledger.ids[4]}" in ledger.findings()
    else:
        assert (
            f"{ledger.wallet} operation {ledger.ids[place + 1]} does not follow on {before}"
            in ledger.findings()
        )


def test_inserted_operation_is_found_and_named(ledger: TamperedLedger) -> None:
    new = ledger.insert_copy("-1 us")
    found = ledger.findings()
    assert f"{ledger.wallet} operation {new} does not follow on {ledger.ids[2]}" in found
    assert (
        f"{ledger.wallet} operation {ledger.ids[3]} follows on the one before {new}, which was put between"
        in found
    )


def test_appended_operation_is_found_and_named(ledger: TamperedLedger) -> None:
    new = ledger.insert_copy("1 day")
    assert f"{ledger.wallet} hash is not that of {new}" in ledger.findings()


def test_swapped_operations_are_found_and_named(ledger: TamperedLedger) -> None:
    (first,), (second,) = ledger.rows("created_at")[:2]
    for id, at in ((ledger.ids[0], "epoch"), (ledger.ids[1], first), (ledger.ids[0], second)):
        ledger.change("UPDATE operation SET created_at = %s WHERE id = %s", at, id)
    found = ledger.findings()
    assert f"operation {ledger.ids[1]} does not follow on the beginning" in found
    assert f"operation {ledger.ids[0]} does not follow on {ledger.ids[1]}" in found


def test_operation_moved_to_another_wallet_is_found(ledger: TamperedLedger) -> None:
    ledger.change("UPDATE operation SET wallet_id = %s WHERE id = %s", ledger.other, ledger.ids[3])
    found = ledger.findings()
    assert f"{ledger.wallet} operation {ledger.ids[4]} does not follow on {ledger.ids[2]}" in found
    assert f"{ledger.other} operation {ledger.ids[3]} does not follow" in found or (
        f"{ledger.other} hash is not that of {ledger.ids[3]}" in found
    )


def test_wallet_with_a_wrong_hash_is_found(ledger: TamperedLedger) -> None:
    ledger.change("UPDATE wallet SET hash = sha256(hash) WHERE id = %s", ledger.wallet)
    assert ledger.findings().startswith(f"{ledger.wallet} hash is not that of {ledger.ids[-1]}")


# --- Checkpoints ------------------------------------------------------------------------------------
@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_key_pair(tmp_path, "key", Ed25519PrivateKey.generate())


def write_key_pair(folder: Path, name: str, key: Ed25519PrivateKey | X25519PrivateKey) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def compare(checkpoint: checkpoints.Checkpoint) -> list[str]:
    verification = Verification(comparison=Comparison(checkpoint))
    found = [each for batch in verify.wallet_batches(3) for each in verification.check(batch)]
    return [f"{each.wallet_id} {each.what}" for each in (*found, *verification.finish())]


Forgery = Callable[[TamperedLedger], object]
FORGERIES: dict[str, Forgery] = {
    "changed": lambda ledger: ledger.change(
        "UPDATE operation SET description = 'x' WHERE id = %s", ledger.ids[1]
    ),
    "removed": lambda ledger: ledger.change("DELETE FROM operation WHERE id = %s", ledger.ids[3]),
    "added": lambda ledger: ledger.insert_copy("-1 us"),
    "removed at the end": lambda ledger: ledger.change("DELETE FROM operation WHERE id = %s", ledger.ids[4]),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.slow
def test_recomputed_chain_is_found_by_a_checkpoint(ledger: TamperedLedger, forgery: str) -> None:
    checkpoint = checkpoints.make()
    assert compare(checkpoint) == []
    FORGERIES[forgery](ledger)
    chain_anew(ledger.superuser, ledger.wallet)
    assert "does not follow" not in ledger.findings()  # the chain is valid without the checkpoint
    found = compare(checkpoint)
    assert any(line.startswith(f"{ledger.wallet} ") and "checkpoint" in line for line in found), found


def test_operations_after_the_checkpoint_are_ignored(ledger: TamperedLedger, api: Api) -> None:
    checkpoint = checkpoints.make()
    api.deposit(ledger.wallet, "1")
    api.open(deposit="1")
    assert compare(checkpoint) == []


def test_backdated_operation_is_found_by_a_checkpoint(ledger: TamperedLedger, api: Api) -> None:
    made = checkpoints.make()
    checkpoint = made.model_copy(update={"made_at": made.made_at + timedelta(hours=1)})
    assert compare(checkpoint) == []
    id = api.deposit(ledger.wallet, "1").json["id"]
    [found] = compare(checkpoint)
    assert found.startswith(f"{ledger.wallet} operation {id} is of ")
    assert found.endswith("before the checkpoint, and was written after it")


def test_deleted_wallet_is_found_by_a_checkpoint(
    ledger: TamperedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2**20)  # one range for each wallet
    checkpoint = checkpoints.make()
    for table in ("hold", "operation", "operation_id", "wallet_change"):
        ledger.superuser.execute(f"DELETE FROM {table} WHERE wallet_id = %s".encode(), [ledger.wallet])
    ledger.change("DELETE FROM wallet WHERE id = %s", ledger.wallet)
    assert any(ledger.wallet in line and "checkpoint" in line for line in compare(checkpoint))


def test_inserted_wallet_is_found_by_a_checkpoint(
    ledger: TamperedLedger, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2**20)  # one range for each wallet
    checkpoint = checkpoints.make()
    new = api.open(deposit="1")
    ledger.change(
        "UPDATE operation SET transaction_id = (SELECT transaction_id FROM operation WHERE id = %s)"
        " WHERE wallet_id = %s",
        ledger.ids[0],
        new,
    )
    assert any("checkpoint" in line and new in line for line in compare(checkpoint))


def test_wallets_share_the_ranges_of_a_checkpoint(
    ledger: TamperedLedger, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2)
    checkpoint = checkpoints.make()
    assert 1 <= len(checkpoint.ranges) <= 2
    assert sum(each.wallets for each in checkpoint.ranges) == checkpoint.wallets
    assert compare(checkpoint) == []
    ledger.change("UPDATE operation SET hash = sha256('') WHERE id = %s", ledger.ids[-1])
    assert any(
        f"of {each.wallets} differs" in line for line in compare(checkpoint) for each in checkpoint.ranges
    )


# --- Commands and files -----------------------------------------------------------------------------
def run(*arguments: object) -> str:
    output = StringIO()
    call_command(*map(str, arguments), stdout=output)
    return output.getvalue()


def test_commands_make_and_compare_a_checkpoint(
    ledger: TamperedLedger, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    file = tmp_path / "checkpoint"
    assert "signed at" in run("checkpoint", file, "--key", private)
    output = run("verify_ledger", "--checkpoint", file, "--public-key", public)
    assert "nothing before the checkpoint of" in output
    ledger.change("UPDATE operation SET hash = sha256('') WHERE id = %s", ledger.ids[-1])
    with pytest.raises(CommandError) as error:
        run("verify_ledger", "--checkpoint", file, "--public-key", public)
    assert error.value.returncode == 1


@pytest.mark.brokers
def test_openssl_verifies_a_checkpoint(keys: tuple[Path, Path], tmp_path: Path, api: Api) -> None:
    api.open(deposit="1")
    private, public = keys
    run("checkpoint", tmp_path / "checkpoint", "--key", private)
    state, signature, _ = (tmp_path / "checkpoint").read_bytes().split(b"\n")
    (tmp_path / "state").write_bytes(state)
    (tmp_path / "signature").write_bytes(base64.b64decode(signature))
    subprocess.run(
        [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            public,
            "-rawin",
            "-in",
            "state",
            "-sigfile",
            "signature",
        ],
        cwd=tmp_path,
        check=True,
    )


def differences(*arguments: object) -> str:
    output = StringIO()
    with pytest.raises(CommandError) as error:
        call_command(*map(str, arguments), stdout=output)
    assert error.value.returncode == 1
    return output.getvalue()


def refused(*arguments: object) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert error.value.returncode == 2
    return str(error.value)


def test_checkpoint_does_not_overwrite_a_file(keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "exists" in refused("checkpoint", tmp_path / "file", "--key", keys[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_keys_of_other_kinds_are_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    others = write_key_pair(tmp_path, "other", X25519PrivateKey.generate())
    for wrong in (public, others[0], tmp_path / "nothing", Path(__file__)):
        refused("checkpoint", tmp_path / "file", "--key", wrong)
    assert not (tmp_path / "file").exists()
    run("checkpoint", tmp_path / "file", "--key", private)
    for wrong in (private, others[1], tmp_path / "nothing", Path(__file__)):
        refused("verify_ledger", "--checkpoint", tmp_path / "file", "--public-key", wrong)


@pytest.mark.parametrize("place", [10, 200, -10])
def test_changed_checkpoint_is_refused(keys: tuple[Path, Path], tmp_path: Path, place: int, api: Api) -> None:
    api.open(deposit="1")
    file = tmp_path / "checkpoint"
    run("checkpoint", file, "--key", keys[0])
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert "signed with this key" in refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])


def test_checkpoint_signed_with_another_key_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    file, other = tmp_path / "checkpoint", write_key_pair(tmp_path, "other", Ed25519PrivateKey.generate())
    run("checkpoint", file, "--key", other[0])
    assert "signed with this key" in refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])


@pytest.mark.parametrize(
    "snapshot", ["", "1:1:'", "9:1:", "0:1:", "1:5:9", "1:5:3,2", "1:99999999999999999999:"]
)
def test_signed_checkpoint_with_invalid_snapshot_is_refused(
    ledger: TamperedLedger, keys: tuple[Path, Path], tmp_path: Path, snapshot: str
) -> None:
    file = tmp_path / "checkpoint"
    key = checkpoints.private_key(keys[0].read_bytes())
    file.write_bytes(checkpoints.signed(checkpoints.make().model_copy(update={"snapshot": snapshot}), key))
    output = refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])
    assert output == "the file is not a checkpoint"


# --- On a standby -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_standby_is_verified_and_makes_no_checkpoint(
    keys: tuple[Path, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, api: Api
) -> None:
    api.open(deposit="1")
    standby = Cluster(tmp_path_factory.mktemp("standby"), cluster.parameters)
    passwords = [str(each.folder / "passwords") for each in (cluster, standby)]
    run_program(["cp", "-a", *passwords])
    backup = [program("pg_basebackup"), "--pgdata", str(standby.data), "--checkpoint", "fast"]
    run_program([*backup, "--write-recovery-conf"], env=cluster.client(DATABASE))
    file = tmp_path / "checkpoint"
    with standby:

        def manage(*arguments: object) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, "manage.py", *map(str, arguments)],
                env=os.environ | {"DATABASE_URL": standby.url()},
                capture_output=True,
                text=True,
                check=False,
            )

        refused = manage("checkpoint", file, "--key", keys[0])
        assert (refused.returncode, file.exists()) == (2, False)
        assert "this is a standby" in refused.stderr
        run("checkpoint", file, "--key", keys[0])
        output = manage("verify_ledger", "--checkpoint", file, "--public-key", keys[1])
        assert "nothing before the checkpoint of" in output.stdout, output.stderr
        assert "could not be recorded" in output.stderr


# --- Incremental checks -----------------------------------------------------------------------------
def test_incremental_check_reads_only_new_operations(ledger: TamperedLedger, api: Api) -> None:
    run("verify_ledger")
    api.deposit(ledger.wallet, "1")
    api.withdraw(ledger.wallet, "1000")
    output = run("verify_ledger", "--incremental")
    assert output.startswith("2 operations of 1 wallets verified")
    assert run("verify_ledger", "--incremental").startswith("0 operations of 0 wallets verified")


def test_incremental_check_ignores_the_time_of_the_last_check(ledger: TamperedLedger) -> None:
    run("verify_ledger")
    ledger.change(
        "UPDATE ledger_check SET ended_at = 'infinity' WHERE id = (SELECT max(id) FROM ledger_check)"
    )
    assert run("verify_ledger", "--incremental").startswith("0 operations of 0 wallets verified")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operation SET amount = 2 WHERE wallet_id = %s AND amount = 1",
        "UPDATE wallet SET balance = balance + 1 WHERE id = %s",
        "DELETE FROM operation WHERE wallet_id = %s AND amount = 1",
        "UPDATE wallet SET held = held + 1 WHERE id = %s",
    ],
)
def test_incremental_check_finds_a_change(ledger: TamperedLedger, api: Api, statement: str) -> None:
    run("verify_ledger")
    api.deposit(ledger.wallet, "1", key="new")
    api.deposit(ledger.wallet, "7")
    if "amount = 1" in statement:
        statement += " AND idempotency_key = 'new'"
    ledger.change(statement, ledger.wallet)
    assert ledger.wallet in differences("verify_ledger", "--incremental")
    assert "verify all of the ledger" in refused("verify_ledger", "--incremental")


def test_incremental_check_refuses_a_snapshot_of_another_database(ledger: TamperedLedger) -> None:
    """A restored dump has new transaction numbers; all of them would seem older than the last check."""
    run("verify_ledger")
    ledger.change(
        "UPDATE ledger_check SET snapshot = '1:9000000000000:' WHERE id = (SELECT max(id) FROM ledger_check)"
    )
    assert "another database: verify all of the ledger" in refused("verify_ledger", "--incremental")
