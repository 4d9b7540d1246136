"""The schema of Liquibase matches the models, and its constraints enforce the rules."""

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from tests.support.client import Api
from tests.support.cluster import cluster
from tests.support.keys import new_key, prefix_of
from wallets.access.rights import SCOPES
from wallets.models import Operation
from wallets.operation_types import OPERATION_TYPES, OperationType
from wallets.schema import EXPECTED_TAG

LIQUIBASE = Path(__file__).parents[2] / "liquibase"
LIQUIBASE_TABLES = {"databasechangelog", "databasechangeloglock"}


def rows(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: list[tuple[object, ...]] = cursor.fetchall()
        return found


def catalogue() -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the columns of each table in PostgreSQL: name -> (type, is nullable)."""
    tables: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, kind, nullable in rows(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " AND a.attnum > 0 AND NOT a.attisdropped"
    ):
        tables.setdefault(str(table), {})[str(column)] = (str(kind), bool(nullable))
    return {table: columns for table, columns in tables.items() if table not in LIQUIBASE_TABLES}


def models() -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the columns of each table in the models, in the form of `catalogue`."""
    spelled = {"varchar": "character varying"}
    return {
        model._meta.db_table: {
            str(field.column): (
                re.sub("varchar", spelled["varchar"], str(field.db_type(connection))).replace(", ", ","),
                field.null,
            )
            for field in model._meta.local_concrete_fields
        }
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
    }


def test_models_match_the_catalogue() -> None:
    assert models() == catalogue()


def test_model_defaults_match_column_defaults() -> None:
    defaults = set(
        rows(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_default IS NOT NULL"
            " AND table_name NOT LIKE 'databasechange%'"
        )
    )
    # The application's role sees the defaults of all columns, because it may use all of them.
    of_models = {
        (model._meta.db_table, field.column)
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.local_concrete_fields
        if field.has_db_default()
    }
    assert of_models == defaults


def test_every_constraint_and_index_has_an_explicit_name() -> None:
    named = "_(pk|fk|unique|idx|is_|not_|within_|positive|closed_|or_)"
    with psycopg.connect(cluster.url("walletsvc_owner")) as owner:
        names = owner.execute(
            "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
            " UNION SELECT relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'i'"
        ).fetchall()
    unnamed = [
        name for (name,) in names if not re.search(named, name) and not name.startswith("databasechange")
    ]
    assert unnamed == []


def test_unique_keys_of_the_ledger_contain_the_wallet() -> None:
    keys = rows(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indisunique"
        " AND indrelid IN ('operation'::regclass, 'wallet_change'::regclass, 'hold'::regclass)"
    )
    assert len(keys) >= 4
    assert [name for name, definition in keys if "wallet_id" not in str(definition)] == []


def test_django_has_nothing_to_create() -> None:
    before = catalogue()
    with pytest.raises(CommandError, match="does not have migrations|No migrations"):
        call_command("migrate", "wallets")
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    assert catalogue() == before


def test_every_changeset_has_a_comment_and_a_rollback() -> None:
    for file in sorted((LIQUIBASE / "changes").glob("*.sql")):
        head, *changesets = file.read_text().split("--changeset ")
        assert head.startswith("--liquibase formatted sql")
        for changeset in changesets:
            assert "\n--comment: " in changeset, changeset.splitlines()[0]
            assert "\n--rollback " in changeset, changeset.splitlines()[0]


def test_every_file_of_changes_is_in_the_changelog_in_order() -> None:
    changelog = yaml.safe_load((LIQUIBASE / "changelog.yaml").read_text())["databaseChangeLog"]
    included = [item["include"]["file"] for item in changelog if "include" in item]
    assert included == sorted(f"changes/{file.name}" for file in (LIQUIBASE / "changes").glob("*.sql"))


def test_service_expects_the_newest_tag() -> None:
    changelog = yaml.safe_load((LIQUIBASE / "changelog.yaml").read_text())["databaseChangeLog"]
    tags = [
        item["changeSet"]["changes"][0]["tagDatabase"]["tag"] for item in changelog if "changeSet" in item
    ]
    assert tags[-1] == EXPECTED_TAG
    assert "changeSet" in changelog[-1], "the newest changes are not tagged"


# --- Constraints ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("balance = -0.01", "wallet_available_within_overdraft_limit"),
        ("held = 100.01", "wallet_available_within_overdraft_limit"),
        ("held = -1", "wallet_held_not_negative"),
        ("max_balance = 99", "wallet_balance_within_max_balance"),
        ("status = 'CLOSED'", "wallet_closed_is_empty"),
        ("status = 'OPEN'", "wallet_status_is_known"),
        ("metadata = '[]'", "wallet_metadata_is_object"),
    ],
)
def test_wallet_constraints_enforce_the_rules(api: Api, change: str, constraint: str) -> None:
    wallet_id = api.open(deposit="100")
    with (
        psycopg.connect(cluster.url("postgres")) as database,
        pytest.raises(psycopg.errors.CheckViolation) as error,
    ):
        database.execute(f"UPDATE wallet SET {change} WHERE id = %s", [wallet_id])
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("amount = 0", "operation_amount_positive"),
        ("amount = -1", "operation_amount_positive"),
        ("sequence = 1", "operation_sequence_unique"),
        ("sequence = NULL", "operation_completed_or_rejected"),
        ("reason = 'x'", "operation_completed_or_rejected"),
        ("balance_after = NULL", "operation_completed_or_rejected"),
        ("idempotency_key = 'a'", "operation_idempotency_key_unique"),
        ("type = 'GIFT'", "operation_type_is_known"),
        ("wallet_id = gen_random_uuid()", "operation_wallet_fk"),
    ],
)
def test_operation_constraints_enforce_its_form(api: Api, change: str, constraint: str) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 1, key="a")
    second = api.deposit(wallet_id, 1, key="b").json["id"]
    with (
        psycopg.connect(cluster.url("postgres")) as database,
        pytest.raises(psycopg.errors.IntegrityError) as error,
    ):
        database.execute(f"UPDATE operation SET {change} WHERE id = %s", [second])
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("constraint", "is_meant"),
    [
        ("operation_type_is_known", lambda row: True),
        ("operation_completed_or_rejected", lambda row: not row.has_sequence),
        ("operation_transfer_is_linked", lambda row: row.link == "transfer_id"),
        ("operation_hold_is_ended", lambda row: row.link == "hold_id"),
        ("operation_reversal_is_linked", lambda row: row.link == "reverses_id"),
    ],
)
def test_constraints_name_the_types_of_the_table(
    constraint: str, is_meant: Callable[[OperationType], bool]
) -> None:
    """A new row of wallets/operation_types.py needs a changeset."""
    [(definition,)] = rows(
        f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{constraint}'"
    )
    named = set(re.findall(r"'(\w+)'", str(definition))) - set(Operation.Status)
    assert named == {name for name, row in OPERATION_TYPES.items() if is_meant(row)}


@pytest.mark.parametrize(
    ("kind", "change", "constraint"),
    [
        ("TRANSFER_OUT", "transfer_id = NULL, counterparty_id = NULL", "operation_transfer_is_linked"),
        ("TRANSFER_OUT", "counterparty_id = NULL", "operation_transfer_is_of_two_wallets"),
        ("TRANSFER_OUT", "counterparty_id = wallet_id", "operation_transfer_is_of_two_wallets"),
        ("DEPOSIT", "type = 'TRANSFER_IN'", "operation_transfer_is_linked"),
        ("DEPOSIT", "type = 'HOLD'", "operation_completed_or_rejected"),
        ("HOLD", "type = 'DEPOSIT'", "operation_completed_or_rejected"),
        ("HOLD", "sequence = 100", "operation_completed_or_rejected"),
        ("HOLD", "balance_after = 1", "operation_completed_or_rejected"),
        ("CAPTURE", "hold_id = NULL", "operation_hold_is_ended"),
        ("VOID", "hold_id = NULL", "operation_hold_is_ended"),
        ("DEPOSIT", "hold_id = id", "operation_hold_is_ended"),
        ("REVERSAL_OUT", "reverses_id = NULL", "operation_reversal_is_linked"),
        ("DEPOSIT", "reverses_id = id", "operation_reversal_is_linked"),
        ("DEPOSIT", "expires_at = now()", "operation_expiry_is_of_hold"),
    ],
)
def test_operation_constraints_enforce_its_links(api: Api, kind: str, change: str, constraint: str) -> None:
    wallet_id, other_id = api.open(deposit="100"), api.open()
    api.transfer(wallet_id, other_id, "1")
    api.capture(api.hold(wallet_id, "1").json["id"])
    api.void(api.hold(wallet_id, "1").json["id"])
    api.reverse(api.deposit(wallet_id, "1").json["id"])
    with (
        psycopg.connect(cluster.url("postgres")) as database,
        pytest.raises(psycopg.errors.CheckViolation) as error,
    ):
        database.execute(
            f"UPDATE operation SET {change} WHERE wallet_id = %s AND type = %s", [wallet_id, kind]
        )
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("amount = 0", "hold_amount_positive"),
        ("status = 'OPEN', ended_at = now()", "hold_status_is_known"),
        ("status = 'VOIDED'", "hold_active_is_not_ended"),
        ("ended_at = now()", "hold_active_is_not_ended"),
        ("status = 'CAPTURED', ended_at = now()", "hold_captured_is_by_operation"),
        (
            "status = 'CAPTURED', ended_at = now(), captured_amount = 1",
            "hold_captured_is_by_operation",
        ),
        (
            "status = 'CAPTURED', ended_at = now(), captured_amount = 1.01, operation_id = id",
            "hold_captured_within_amount",
        ),
        (
            "status = 'CAPTURED', ended_at = now(), captured_amount = 0, operation_id = id",
            "hold_captured_within_amount",
        ),
        (
            "status = 'VOIDED', ended_at = now(), captured_amount = 1, operation_id = id",
            "hold_captured_is_by_operation",
        ),
        ("status = 'EXPIRED', ended_at = now()", "hold_expired_is_ended_in_time"),
        ("wallet_id = gen_random_uuid()", "hold_wallet_fk"),
    ],
)
def test_hold_constraints_enforce_its_states(api: Api, change: str, constraint: str) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "1", expiresAt="2100-01-01T00:00:00Z").json["id"]
    with (
        psycopg.connect(cluster.url("postgres")) as database,
        pytest.raises(psycopg.errors.IntegrityError) as error,
    ):
        database.execute(f"UPDATE hold SET {change} WHERE id = %s", [hold_id])
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("prefix = 'short'", "api_key_prefix_is_plain"),
        ("prefix = 'ABCDEFGH'", "api_key_prefix_is_plain"),
        ("digest = 'x'", "api_key_digest_is_sha256"),
        ("scopes = '{}'", "api_key_scopes_is_known"),
        ("scopes = '{admin,everything}'", "api_key_scopes_is_known"),
        ("is_restricted_to_owner = true", "api_key_restricted_is_owned"),
        ("owner_id = 0", "api_key_owner_fk"),
    ],
)
def test_api_key_constraints_enforce_its_form(change: str, constraint: str) -> None:
    prefix = prefix_of(new_key("wallets:read"))
    with (
        psycopg.connect(cluster.url("postgres")) as database,
        pytest.raises(psycopg.errors.IntegrityError) as error,
    ):
        database.execute(f"UPDATE api_key SET {change} WHERE prefix = %s", [prefix])
    assert error.value.diag.constraint_name == constraint


def test_table_accepts_every_scope() -> None:
    for scope in SCOPES:
        assert new_key(scope)
