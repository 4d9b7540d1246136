"""Every released version can be upgraded: its schema with its data, then the current changelogs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local import ROOT, liquibase
from local.postgres import OWNER
from local.service import Address, environment, manage
from tests.support.cluster import cluster
from wallets.schema import EXPECTED_TAG

DATA = Path(__file__).parent / "released"
RELEASED_TAGS = [f"v{number}" for number in range(1, int(EXPECTED_TAG[1:]))]
# The last version without hashes. A changelog adds hashes to its operations; later services wrote them.
LAST_UNCHAINED = 5


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database in the cluster of the tests."""
    name = f"upgrade_{request.node.callspec.params['tag']}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def write_data(database: str, tag: str) -> None:
    with psycopg.connect(cluster.url("postgres", database)) as connection:
        connection.execute((DATA / f"{tag}.sql").read_bytes())


def install_version(database: str, version: int) -> None:
    """Create the schema and the data of a service of this version."""
    cluster.prepare_roles(database)
    url = cluster.url(OWNER, database)
    liquibase.update_to(url, f"v{min(version, LAST_UNCHAINED)}")
    for number in range(1, version + 1):
        if number > LAST_UNCHAINED:
            liquibase.update_to(url, f"v{number}")
        write_data(database, f"v{number}")


@pytest.mark.parametrize(
    "tag", [tag if tag == "v1" else pytest.param(tag, marks=pytest.mark.slow) for tag in RELEASED_TAGS]
)
def test_released_schema_with_its_data_is_upgraded_and_verified(database: str, tag: str) -> None:
    install_version(database, int(tag[1:]))
    liquibase.update(cluster.url(OWNER, database))
    env = environment(cluster.url(database=database), Address("127.0.0.1", 1)) | {"LOG_LEVEL": "WARNING"}
    assert "every balance equals its ledger" in manage(env, "verify_ledger")
    with psycopg.connect(cluster.url(database=database)) as connection:
        rows = connection.execute("SELECT right(id::text, 1), balance FROM wallet").fetchall()
    assert sorted(rows) == [
        (letter, balance)
        for letter, balance, since in (("a", 70, 1), ("b", 0, 1), ("c", 55, 2), ("d", 30, 2), ("e", 1, 6))
        if int(tag[1:]) >= since
    ]


def test_released_changesets_are_unchanged() -> None:
    """A database applies a changeset once, so a released changeset must never change."""
    listed = dict(line.split() for line in (DATA / "changesets.sha256").read_text().splitlines())
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((ROOT / "liquibase" / "changes").glob("*.sql"))
    }
    assert {name: found.get(name) for name in listed} == listed
