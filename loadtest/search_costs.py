"""`make search-costs`: measures the database's time for every combination of filters, on a large ledger.

It sends the requests to the API in this process, then explains each of their queries: with `--plans` only its
plan, otherwise also the time of its execution. A combination fails if a plan has a sequential scan of a large
table, or if its queries take more than MAX_MS together (the smaller of two executions).
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import combinations
from pathlib import Path
from tempfile import mkdtemp
from typing import Final
from urllib.parse import urlencode

import psycopg

from local import LocalError, template
from local.postgres import SUPERUSER, Cluster

OPERATIONS: Final = 10_000_000
OPERATIONS_PER_WALLET: Final = 100  # of all wallets except the hot one, which has every tenth operation
MIN_WALLETS: Final = 20_000  # for a smaller table, a sequential scan is the right plan
MAX_MS: Final = 20.0
MAX_FILTERS: Final = 2  # in one request
LARGE_TABLES: Final = frozenset(("operation", "wallet", "wallet_user"))

# A replica's session does not check foreign keys: the operations have no counterparts and no holds.
_FILL: Final = """
SET session_replication_role = replica;
INSERT INTO wallet_user (id, password, is_superuser, username, first_name, last_name, email, is_staff,
    is_active, date_joined)
SELECT n, '', false, 'user' || n, '', '', 'user' || n || '@example.com', false, true, now()
FROM generate_series(1, 1000) AS n;
INSERT INTO wallet (id, currency, label, external_id, metadata, owner_id, status, created_at)
SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
    CASE n % 10 WHEN 0 THEN 'EUR' ELSE 'RUB' END,
    CASE n % 2 WHEN 0 THEN 'shop ' ELSE 'till ' END || n, 'customer-' || n,
    CASE n % 2 WHEN 0 THEN jsonb_build_object('shop', n) ELSE '{"shop": "north"}' END,
    CASE WHEN n > 0 THEN 1 + n % 1000 END, CASE n % 1000 WHEN 0 THEN 'FROZEN' ELSE 'ACTIVE' END,
    now() - n * interval '1 second'
FROM generate_series(0, %(wallets)s) AS n;
INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, reason, idempotency_key,
    transfer_id, counterparty_id, reference, metadata, created_at, hash)
SELECT ('00000000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid, wallet,
    CASE WHEN rejected OR type = 'HOLD' THEN NULL ELSE n END, type, 1 + n % 100000,
    CASE WHEN rejected OR type = 'HOLD' THEN NULL ELSE 1 END,
    CASE WHEN rejected THEN 'REJECTED' ELSE 'COMPLETED' END, CASE WHEN rejected THEN 'insufficient_funds' END,
    'key-' || n,
    CASE type WHEN 'TRANSFER_OUT' THEN ('00000000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid END,
    CASE type WHEN 'TRANSFER_OUT' THEN '00000000-0000-7000-8000-999999999999'::uuid END,
    CASE WHEN n % 100 = 0 THEN 'bonus' WHEN n % 2 = 0 THEN 'order-' || n ELSE '' END,
    CASE WHEN n % 20 = 1 THEN '{"kind": "bonus"}' WHEN n % 5 = 0 THEN jsonb_build_object('order', n)
        ELSE '{}' END,
    now() - (%(operations)s - n) * interval '1 millisecond', sha256(n::text::bytea)
FROM (
    SELECT n, n % 1000 = 7 AS rejected,
        CASE n % 100 WHEN 3 THEN 'TRANSFER_OUT' WHEN 4 THEN 'HOLD' WHEN 5 THEN 'WITHDRAW' ELSE 'DEPOSIT' END
            AS type,
        ('00000000-0000-7000-8000-' || lpad(
            (CASE n % 10 WHEN 0 THEN 0 ELSE 1 + n % %(wallets)s END)::text, 12, '0'
        ))::uuid AS wallet
    FROM generate_series(%(first)s, %(last)s) AS n
) AS made;
"""
_HOT_WALLET, _WALLET = "00000000-0000-7000-8000-000000000000", "00000000-0000-7000-8000-000000000017"


def operation_filters(operations: int) -> dict[str, list[str]]:
    """Return rare and frequent values of each filter of GET /operations, from all parts of the ledger."""
    middle = operations // 2
    return {
        "reference": [f"order-{middle + 2}", "bonus", "none"],
        "idempotencyKey": [f"key-{middle}"],
        "transferId": [f"00000000-0000-7000-9000-{middle - middle % 100 + 3:012}"],
        "walletId": [_HOT_WALLET, _WALLET],
        "type": ["HOLD", "TRANSFER_OUT", "DEPOSIT,WITHDRAW"],
        "status": ["REJECTED"],
        "from": ["2020-01-01T00:00:00Z"],
        "to": ["2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z"],
        "minAmount": ["99999", "1000000"],
        "maxAmount": ["1"],
        "metadata.order": [str(middle), "none"],
        "metadata.kind": ["bonus"],
    }


WALLET_FILTERS: Final = {
    "externalId": ["customer-17", "none"],
    "currency": ["EUR", "KWD"],
    "status": ["FROZEN", "CLOSED"],
    "ownerEmail": ["user17@example.com", "none@example.com"],
    "label": ["shop", "till 17", "none"],
    "metadata.shop": ["north", "16", "none"],
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The cost of one request."""

    path: str
    milliseconds: float
    plans: str

    @property
    def scanned_tables(self) -> set[str]:
        return {table for table in LARGE_TABLES if f"Seq Scan on {table}" in self.plans}


def fill(database: psycopg.Connection, operations: int) -> None:
    """Write a ledger with this number of operations. The indexes are dropped before and created after it."""
    indexes = database.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'operation'"
        " AND NOT indexname = ANY(ARRAY(SELECT conname::text FROM pg_constraint))"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}".encode())
    wallets = max(MIN_WALLETS, operations // OPERATIONS_PER_WALLET)
    statements = [statement for statement in _FILL.split(";\n") if statement.strip()]
    numbers = {"wallets": wallets, "operations": operations, "first": 1, "last": operations}
    for statement in statements:
        database.execute((statement.replace(" % ", " %% ")).encode(), numbers)
    for _, definition in indexes:
        database.execute(definition.encode())
    database.execute("VACUUM (ANALYZE)")


def requests(operations: int, max_filters: int) -> Iterator[str]:
    """Yield the path of every combination of up to `max_filters` filters with each of their values."""
    lists = [
        ("/api/v1/operations", operation_filters(operations)),
        ("/api/v1/wallets", WALLET_FILTERS),
    ]
    history = {
        name: values
        for name, values in operation_filters(operations).items()
        if name not in ("idempotencyKey", "transferId", "walletId")
    }
    lists += [(f"/api/v1/wallets/{wallet}/operations", history) for wallet in (_HOT_WALLET, _WALLET)]
    for path, filters in lists:
        pairs = [(name, value) for name, values in filters.items() for value in values]
        for count in range(max_filters + 1):
            for chosen in combinations(pairs, count):
                if len({name for name, _ in chosen}) == count:
                    yield f"{path}?{urlencode(chosen)}"


def measure(path: str, execute: bool) -> Finding:
    """Send the request, and explain its queries."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        response = Client().get(path)
    if response.status_code != HTTPStatus.OK:
        raise LocalError(f"{path} was answered {response.status_code}: {response.content.decode()}")
    plans = [_explain(sql, settings, execute) for sql, settings in _selects(captured.captured_queries)]
    return Finding(path, sum(ms for _, ms in plans), "\n".join(plan for plan, _ in plans))


def _selects(queries: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield each SELECT, and the settings of its transaction."""
    settings: list[str] = []
    for query in queries:
        if query["sql"].startswith("SET LOCAL"):
            settings.append(query["sql"])
        elif query["sql"].startswith("SELECT"):
            yield query["sql"], list(settings)
        else:
            settings.clear()  # BEGIN or COMMIT


def _explain(sql: str, settings: Sequence[str], execute: bool) -> tuple[str, float]:
    """Return the plan, and the milliseconds of planning and execution (0 if it is not executed)."""
    from django.db import connection, transaction

    options = "ANALYZE, TIMING OFF" if execute else "COSTS OFF"
    found: list[tuple[str, float]] = []
    for _ in range(2 if execute else 1):
        with transaction.atomic(), connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(setting)
            cursor.execute(f"EXPLAIN ({options}) {sql}")
            lines = [str(row[0]) for row in cursor.fetchall()]
        timed = [line for line in lines if line.startswith(("Planning Time", "Execution Time"))]
        times = [float(line.split()[2]) for line in timed]
        found.append(("\n".join(lines), sum(times)))
    return min(found, key=lambda each: each[1])


def run(cluster: Cluster, operations: int, max_filters: int, execute: bool) -> list[Finding]:
    """Fill the cluster and return the cost of every request."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as database:
        fill(database, operations)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "walletsvc.settings",
        "SECRET_KEY": "x" * 50,  # only for this process
        "DATABASE_URL": cluster.url(),
        "API_ACCESS": "open",
        "ALLOWED_HOSTS": "*",
        "HTTPS": "off",
        "GROUP_COMMIT": "off",
    }
    import django

    django.setup()
    return [measure(path, execute) for path in requests(operations, max_filters)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="search-costs", description=__doc__)
    parser.add_argument(
        "--operations", type=int, default=OPERATIONS, help="number of operations in the ledger"
    )
    parser.add_argument("--filters", type=int, default=MAX_FILTERS, help="most filters in one request")
    parser.add_argument(
        "--plans", action="store_true", help="check only the plans, without executing queries"
    )
    options = parser.parse_args()
    folder = mkdtemp(prefix="walletsvc-search-")
    try:
        with Cluster(template.copy(Path(folder) / "cluster").folder, template.FAST_SETTINGS) as cluster:
            found = run(cluster, options.operations, options.filters, execute=not options.plans)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = [finding for finding in found if finding.scanned_tables or finding.milliseconds > MAX_MS]
    for finding in sorted(failed or found, key=lambda each: -each.milliseconds)[:20]:
        scanned = f"; scans {', '.join(sorted(finding.scanned_tables))}" if finding.scanned_tables else ""
        print(f"{finding.milliseconds:8.2f} ms  {finding.path}{scanned}")
    print(f"{len(found)} combinations of filters on {options.operations:,} operations, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
