"""Whoever may do everything with the database changes the ledger by hand: it is found, and named."""

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


class Books:
    """A wallet with four deposits, and another beside it, which stay for this test alone."""

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
        asked = f"SELECT {columns} FROM operation WHERE wallet_id = %s ORDER BY created_at"
        return self.superuser.execute(asked.encode(), [self.wallet]).fetchall()

    def change(self, statement: str, *parameters: object) -> None:
        assert self.superuser.execute(statement.encode(), parameters).rowcount == 1

    def findings(self, since: Snapshot = NOTHING) -> str:
        found = Verification(since).check([self.wallet, self.other])  # type: ignore[list-item]
        return "\n".join(f"{difference.wallet_id} {difference.what}" for difference in found)

    def slip_in(self, later: str) -> str:
        """An operation, so much later than the refused one, whose likeness it is; it has no sequence."""
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
        mine = [self.wallet, self.other]
        for table in ("hold", "operation", "operation_id", "wallet_change"):
            self.superuser.execute(f"DELETE FROM {table} WHERE wallet_id = ANY(%s)".encode(), [mine])
        self.superuser.execute("DELETE FROM wallet WHERE id = ANY(%s)", [mine])

    @contextmanager
    def unguarded(self, table: str) -> Iterator[None]:
        """Whoever may do everything drops the table's constraints first. The books are gone afterwards."""
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
def books(api: Api, superuser: psycopg.Connection) -> Iterator[Books]:
    books = Books(api, superuser)
    assert books.findings() == ""
    yield books
    books.remove()


# --- By the chain alone -----------------------------------------------------------------------------
FLIPS = {
    "amount": "amount + 1",
    "balance_after": "balance_after + 1",
    "sequence": "sequence + 100",
    "type": "'WITHDRAW'",
    "idempotency_key": "'b'",
    "description": "'three'",
    "metadata": """'{"a": 2}'""",
    "actor": "'nobody'",
    "accepted_at": "created_at",
    "created_at": "created_at + interval '1 microsecond'",
    "takes_rest": "true",
    "id": "gen_random_uuid()",
    "hash": "sha256(hash)",
}


@pytest.mark.parametrize("column", FLIPS)
def test_a_column_that_was_changed_is_found_and_its_operation_named(books: Books, column: str) -> None:
    books.change(f"UPDATE operation SET {column} = {FLIPS[column]} WHERE id = %s", books.ids[1])
    found = books.findings()
    named = str(books.rows("id::text")[1][0])
    assert f"{books.wallet} operation {named} does not follow on {books.ids[0]}" in found
    # Those after it follow on its own hash, unless that is what was changed.
    assert (f"operation {books.ids[2]} does not follow" in found) == (column == "hash")


@pytest.mark.parametrize(
    "column", ["status", "reason", "transfer_id", "counterparty_id", "hold_id", "reverses_id"]
)
def test_so_are_those_that_a_constraint_guards(books: Books, column: str) -> None:
    value = "gen_random_uuid()" if column.endswith("_id") else "'OTHER'"
    with books.unguarded("operation"):
        books.change(f"UPDATE operation SET {column} = {value} WHERE id = %s", books.ids[1])
        assert f"operation {books.ids[1]} does not follow on {books.ids[0]}" in books.findings()


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
def test_what_nobody_would_write_is_named_and_hides_nothing_else(
    books: Books, column: str, value: str
) -> None:
    with books.unguarded("operation"):
        books.change("UPDATE wallet SET balance = balance + 1 WHERE id = %s", books.other)
        # To what it says, where that is what it says already, by way of another.
        books.change(f"UPDATE operation SET actor = 'x', {column} = {value} WHERE id = %s", books.ids[1])
        found = books.findings()
        assert f"{books.wallet} operation {books.ids[1]} does not follow on" in found
        assert f"{books.other} balance 106.0000, the ledger says 105.0000" in found


@pytest.mark.parametrize("value", ["NULL", "'NaN'"])
def test_nor_does_it_where_all_hashes_were_computed_anew(books: Books, value: str) -> None:
    with books.unguarded("operation"):
        books.change(f"UPDATE operation SET amount = {value} WHERE id = %s", books.ids[1])
        chain_anew(books.superuser, books.wallet)
        found = books.findings()
        assert f"{books.wallet} operation {books.ids[1]}: sequence 2, amount " in found
        assert "not all are numbers" in found


@pytest.mark.parametrize("value", ["NULL", "'NaN'"])
@pytest.mark.parametrize("column", ["balance", "held", "sequence", "hash"])
def test_nor_in_a_wallet(books: Books, column: str, value: str, api: Api) -> None:
    if value == "'NaN'" and column in ("sequence", "hash"):
        value = "'0'"
    _, since = verify.now()
    api.deposit(books.wallet, "1")
    with books.unguarded("wallet"):
        books.change(f"UPDATE wallet SET {column} = {value} WHERE id = %s", books.wallet)
        assert f"{books.wallet} {column} " in books.findings()
        assert f"{books.wallet} {column} " in books.findings(since)


def test_the_next_check_goes_on_from_what_is_none(books: Books, api: Api) -> None:
    _, since = verify.now()
    api.deposit(books.wallet, "1")
    with books.unguarded("operation"):
        books.change("UPDATE operation SET hash = NULL, balance_after = 'NaN' WHERE id = %s", books.ids[-1])
        assert f"{books.wallet} operation " in books.findings(since)


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
def test_a_hold_that_was_changed_or_ended_is_found(books: Books, change: str) -> None:
    books.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", books.wallet)
    books.change("UPDATE wallet SET held = 0, next_expiry_at = NULL WHERE id = %s", books.wallet)
    assert f"{books.wallet} hold {books.ids[4]} is " in books.findings()


@pytest.mark.parametrize("change", ["ended_at = ended_at - interval '1 day'", "operation_id = id"])
def test_so_is_one_that_ended_otherwise(books: Books, api: Api, change: str) -> None:
    assert api.capture(str(books.ids[4]), amount="1").status == 201
    assert books.findings() == ""
    books.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", books.wallet)
    assert f"{books.wallet} hold {books.ids[4]} is not as operation " in books.findings()


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
def test_so_is_one_whose_end_no_constraint_looks_at(books: Books, change: str) -> None:
    with books.unguarded("hold"):
        books.change(f"UPDATE hold SET {change} WHERE wallet_id = %s", books.wallet)
        found = books.findings()
        assert f"{books.wallet} hold {books.ids[4]} is " in found
        assert ", and its end says otherwise" in found


def test_no_hold_ends_before_its_time_because_a_wallet_says_that_it_is_late(books: Books, api: Api) -> None:
    held = api.hold(books.wallet, "3", expiresAt="2199-01-01T00:00:00Z").json["id"]
    books.change("UPDATE hold SET status = 'EXPIRED', ended_at = expires_at WHERE id = %s", held)
    books.change(
        "UPDATE wallet SET held = 3, next_expiry_at = NULL, updated_at = '2199-01-01' WHERE id = %s",
        books.wallet,
    )
    assert f"{books.wallet} hold {held} is EXPIRED, but expires at 2199-01-01" in books.findings()


@pytest.mark.parametrize("transaction", ["0", None])
def test_what_is_of_no_transaction_is_found(books: Books, transaction: str | None) -> None:
    """Else nobody would see that its hold is gone: what is looked at is chosen by transaction."""
    with books.unguarded("operation"):
        books.change("UPDATE operation SET transaction_id = %s WHERE id = %s", transaction, books.ids[4])
        books.change("DELETE FROM hold WHERE id = %s", books.ids[4])
        books.change("UPDATE wallet SET held = 0, next_expiry_at = NULL WHERE id = %s", books.wallet)
        assert f"{books.wallet} operation {books.ids[4]} is of no transaction" in books.findings()


@pytest.mark.parametrize("table", ["wallet", "hold"])
def test_what_is_there_twice_is_found(books: Books, table: str) -> None:
    column = "id" if table == "wallet" else "wallet_id"
    with more_than_plain(f"CREATE TABLE twice () INHERITS ({table})", "DROP TABLE twice"):
        books.change(f"INSERT INTO twice SELECT * FROM ONLY {table} WHERE {column} = %s", books.wallet)
        assert "is there 2 times" in books.findings()
        assert f"{table}: no plain tables" in refused("verify_ledger")


@pytest.mark.parametrize(
    ("deed", "undone"),
    [
        ("ALTER TABLE wallet ENABLE ROW LEVEL SECURITY", "ALTER TABLE wallet DISABLE ROW LEVEL SECURITY"),
        ("CREATE RULE lie AS ON DELETE TO operation DO INSTEAD NOTHING", "DROP RULE lie ON operation"),
    ],
)
def test_tables_that_may_show_the_service_something_else_are_refused(deed: str, undone: str) -> None:
    with more_than_plain(deed, undone):
        assert "no plain tables" in refused("verify_ledger")


@contextmanager
def more_than_plain(deed: str, undone: str) -> Iterator[None]:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as superuser:
        superuser.execute(deed.encode())
        try:
            yield
        finally:
            superuser.execute(undone.encode())


def test_the_first_wallet_of_all_is_looked_at(books: Books) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    books.change("INSERT INTO wallet (id, currency, balance) VALUES (%s, 'EUR', 1000)", nobody)
    try:
        assert f"{nobody} balance 1000.0000, the ledger says 0.0000" in differences("verify_ledger")
    finally:
        books.change("DELETE FROM wallet WHERE id = %s", nobody)


def test_numbers_beyond_all_bounds_are_named(books: Books, keys: tuple[Path, Path], tmp_path: Path) -> None:
    books.change("UPDATE wallet SET sequence = 9223372036854775807 WHERE id = %s", books.wallet)
    assert f"{books.wallet} sequence 9223372036854775807, " in differences("verify_ledger")
    run("checkpoint", tmp_path / "checkpoint", "--key", keys[0])


def test_who_changes_the_schema_meanwhile_is_waited_for(books: Books) -> None:
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("LOCK TABLE operation IN ACCESS EXCLUSIVE MODE")
        Timer(1, other.rollback).start()
        assert books.findings() == ""


def test_a_wallet_that_is_gone_is_found_by_what_is_left_of_it(books: Books) -> None:
    run("verify_ledger")
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as replica:
        replica.execute("SET session_replication_role = replica")  # foreign keys are not looked at
        replica.execute("DELETE FROM wallet WHERE id = %s", [books.wallet])
    assert f"{books.wallet} is missing, but rows of it exist" in differences("verify_ledger")


def test_every_column_of_an_operation_is_tried() -> None:
    guarded = {"status", "reason", "transfer_id", "counterparty_id", "hold_id", "reverses_id"}
    elsewhere = {"wallet_id", "expires_at", "transaction_id"}  # moved; holds; not in the chain
    assert set(COLUMNS) == FLIPS.keys() | guarded | elsewhere


@pytest.mark.parametrize("place", range(6))
def test_an_operation_that_was_deleted_is_found_where_it_was(books: Books, place: int) -> None:
    books.change("DELETE FROM operation WHERE id = %s", books.ids[place])
    before = books.ids[place - 1] if place else "the beginning"
    if place == 5:
        assert f"{books.wallet} hash not of its last operation, {books.ids[4]}" in books.findings()
    else:
        assert (
            f"{books.wallet} operation {books.ids[place + 1]} does not follow on {before}" in books.findings()
        )


def test_an_operation_that_was_inserted_is_found_and_named(books: Books) -> None:
    new = books.slip_in("-1 us")
    found = books.findings()
    assert f"{books.wallet} operation {new} does not follow on {books.ids[2]}" in found
    assert (
        f"{books.wallet} operation {books.ids[3]} follows on the one before {new}, which was put between"
        in found
    )


def test_an_operation_that_was_added_at_the_end_is_found_and_named(books: Books) -> None:
    new = books.slip_in("1 day")
    assert f"{books.wallet} hash not of its last operation, {new}" in books.findings()


def test_operations_that_changed_places_are_found_and_named(books: Books) -> None:
    (first,), (second,) = books.rows("created_at")[:2]
    for id, at in ((books.ids[0], "epoch"), (books.ids[1], first), (books.ids[0], second)):
        books.change("UPDATE operation SET created_at = %s WHERE id = %s", at, id)
    found = books.findings()
    assert f"operation {books.ids[1]} does not follow on the beginning" in found
    assert f"operation {books.ids[0]} does not follow on {books.ids[1]}" in found


def test_an_operation_that_moved_to_another_wallet_is_found(books: Books) -> None:
    books.change("UPDATE operation SET wallet_id = %s WHERE id = %s", books.other, books.ids[3])
    found = books.findings()
    assert f"{books.wallet} operation {books.ids[4]} does not follow on {books.ids[2]}" in found
    assert f"{books.other} operation {books.ids[3]} does not follow" in found or (
        f"{books.other} hash not of its last operation, {books.ids[3]}" in found
    )


def test_a_wallet_with_another_hash_is_found(books: Books) -> None:
    books.change("UPDATE wallet SET hash = sha256(hash) WHERE id = %s", books.wallet)
    assert books.findings().startswith(f"{books.wallet} hash not of its last operation, {books.ids[-1]}")


# --- By a checkpoint --------------------------------------------------------------------------------
@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, "key", Ed25519PrivateKey.generate())


def written(folder: Path, name: str, key: Ed25519PrivateKey | X25519PrivateKey) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def compare(checkpoint: checkpoints.Checkpoint) -> list[str]:
    verification = Verification(comparison=Comparison(checkpoint))
    found = [each for batch in verify.wallet_batches(3) for each in verification.check(batch)]
    return [f"{each.wallet_id} {each.what}" for each in (*found, *verification.finish())]


Forgery = Callable[[Books], object]
FORGERIES: dict[str, Forgery] = {
    "changed": lambda books: books.change(
        "UPDATE operation SET description = 'x' WHERE id = %s", books.ids[1]
    ),
    "removed": lambda books: books.change("DELETE FROM operation WHERE id = %s", books.ids[3]),
    "added": lambda books: books.slip_in("-1 us"),
    "removed at the end": lambda books: books.change("DELETE FROM operation WHERE id = %s", books.ids[4]),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.slow
def test_a_chain_that_was_made_anew_is_found_by_a_checkpoint(books: Books, forgery: str) -> None:
    checkpoint = checkpoints.make()
    assert compare(checkpoint) == []
    FORGERIES[forgery](books)
    chain_anew(books.superuser, books.wallet)
    assert "does not follow" not in books.findings()  # nor is anything else wrong with the chain
    found = compare(checkpoint)
    assert any(line.startswith(f"{books.wallet} ") and "checkpoint" in line for line in found), found


def test_what_comes_after_the_checkpoint_is_not_its_matter(books: Books, api: Api) -> None:
    checkpoint = checkpoints.make()
    api.deposit(books.wallet, "1")
    api.open(deposit="1")
    assert compare(checkpoint) == []


def test_what_was_written_later_and_dated_back_is_found(books: Books, api: Api) -> None:
    made = checkpoints.make()
    checkpoint = made.model_copy(update={"made_at": made.made_at + timedelta(hours=1)})
    assert compare(checkpoint) == []
    id = api.deposit(books.wallet, "1").json["id"]
    [found] = compare(checkpoint)
    assert found.startswith(f"{books.wallet} operation {id} is of ")
    assert found.endswith("before the checkpoint, and was written after it")


def test_a_wallet_that_vanished_is_found_by_a_checkpoint(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2**20)  # each wallet by itself, however many there are
    checkpoint = checkpoints.make()
    for table in ("hold", "operation", "operation_id", "wallet_change"):
        books.superuser.execute(f"DELETE FROM {table} WHERE wallet_id = %s".encode(), [books.wallet])
    books.change("DELETE FROM wallet WHERE id = %s", books.wallet)
    assert any(books.wallet in line and "checkpoint" in line for line in compare(checkpoint))


def test_a_wallet_that_was_slipped_in_is_found_by_a_checkpoint(
    books: Books, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2**20)  # each wallet by itself, however many there are
    checkpoint = checkpoints.make()
    new = api.open(deposit="1")
    books.change(
        "UPDATE operation SET transaction_id = (SELECT transaction_id FROM operation WHERE id = %s)"
        " WHERE wallet_id = %s",
        books.ids[0],
        new,
    )
    assert any("checkpoint" in line and new in line for line in compare(checkpoint))


def test_many_wallets_share_the_ranges_of_a_checkpoint(
    books: Books, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_RANGES", 2)
    checkpoint = checkpoints.make()
    assert 1 <= len(checkpoint.ranges) <= 2
    assert sum(each.wallets for each in checkpoint.ranges) == checkpoint.wallets
    assert compare(checkpoint) == []
    books.change("UPDATE operation SET hash = sha256('') WHERE id = %s", books.ids[-1])
    assert any(
        f"of {each.wallets} differs" in line for line in compare(checkpoint) for each in checkpoint.ranges
    )


# --- The files --------------------------------------------------------------------------------------
def run(*arguments: object) -> str:
    output = StringIO()
    call_command(*map(str, arguments), stdout=output)
    return output.getvalue()


def test_the_commands_make_and_compare_a_checkpoint(
    books: Books, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    file = tmp_path / "checkpoint"
    assert "signed at" in run("checkpoint", file, "--key", private)
    told = run("verify_ledger", "--checkpoint", file, "--public-key", public)
    assert "nothing before the checkpoint of" in told
    books.change("UPDATE operation SET hash = sha256('') WHERE id = %s", books.ids[-1])
    with pytest.raises(CommandError) as error:
        run("verify_ledger", "--checkpoint", file, "--public-key", public)
    assert error.value.returncode == 1


@pytest.mark.brokers
def test_openssl_verifies_a_checkpoint_as_well(keys: tuple[Path, Path], tmp_path: Path, api: Api) -> None:
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


def test_a_file_that_exists_is_not_written_over(keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "exists" in refused("checkpoint", tmp_path / "file", "--key", keys[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_keys_of_other_kinds_are_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    others = written(tmp_path, "other", X25519PrivateKey.generate())
    for wrong in (public, others[0], tmp_path / "nothing", Path(__file__)):
        refused("checkpoint", tmp_path / "file", "--key", wrong)
    assert not (tmp_path / "file").exists()
    run("checkpoint", tmp_path / "file", "--key", private)
    for wrong in (private, others[1], tmp_path / "nothing", Path(__file__)):
        refused("verify_ledger", "--checkpoint", tmp_path / "file", "--public-key", wrong)


@pytest.mark.parametrize("place", [10, 200, -10])
def test_a_checkpoint_that_was_changed_is_refused(
    keys: tuple[Path, Path], tmp_path: Path, place: int, api: Api
) -> None:
    api.open(deposit="1")
    file = tmp_path / "checkpoint"
    run("checkpoint", file, "--key", keys[0])
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert "signed with that key" in refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])


def test_a_checkpoint_of_another_key_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    file, other = tmp_path / "checkpoint", written(tmp_path, "other", Ed25519PrivateKey.generate())
    run("checkpoint", file, "--key", other[0])
    assert "signed with that key" in refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])


@pytest.mark.parametrize(
    "snapshot", ["", "1:1:'", "9:1:", "0:1:", "1:5:9", "1:5:3,2", "1:99999999999999999999:"]
)
def test_a_signature_under_nonsense_is_not_enough(
    books: Books, keys: tuple[Path, Path], tmp_path: Path, snapshot: str
) -> None:
    file = tmp_path / "checkpoint"
    key = checkpoints.private_key(keys[0].read_bytes())
    file.write_bytes(checkpoints.signed(checkpoints.make().model_copy(update={"snapshot": snapshot}), key))
    told = refused("verify_ledger", "--checkpoint", file, "--public-key", keys[1])
    assert told == "this is no checkpoint"


# --- On a standby -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_standby_is_verified_and_makes_no_checkpoint(
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
        told = manage("verify_ledger", "--checkpoint", file, "--public-key", keys[1])
        assert "nothing before the checkpoint of" in told.stdout, told.stderr
        assert "could not be recorded" in told.stderr


# --- From one check to the next ---------------------------------------------------------------------
def test_the_next_check_looks_at_what_came_since_alone(books: Books, api: Api) -> None:
    run("verify_ledger")
    api.deposit(books.wallet, "1")
    api.withdraw(books.wallet, "1000")
    told = run("verify_ledger", "--incremental")
    assert told.startswith("2 operations of 1 wallets verified")
    assert run("verify_ledger", "--incremental").startswith("0 operations of 0 wallets verified")


def test_it_needs_no_time_of_the_last_check(books: Books) -> None:
    run("verify_ledger")
    books.change(
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
def test_what_is_wrong_with_it_is_found(books: Books, api: Api, statement: str) -> None:
    run("verify_ledger")
    api.deposit(books.wallet, "1", key="new")
    api.deposit(books.wallet, "7")
    if "amount = 1" in statement:
        statement += " AND idempotency_key = 'new'"
    books.change(statement, books.wallet)
    assert books.wallet in differences("verify_ledger", "--incremental")
    assert "verify all of the ledger" in refused("verify_ledger", "--incremental")


def test_what_a_check_of_another_database_has_seen_is_no_beginning(books: Books) -> None:
    """After a dump was restored, transactions are counted anew: all would be older than that check."""
    run("verify_ledger")
    books.change(
        "UPDATE ledger_check SET snapshot = '1:9000000000000:' WHERE id = (SELECT max(id) FROM ledger_check)"
    )
    assert "another database: verify all of the ledger" in refused("verify_ledger", "--incremental")
