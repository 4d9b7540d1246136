"""`make roundtrip`: update, roll back everything, update again, and compare the schemas."""

import sys
import tempfile
from difflib import unified_diff
from pathlib import Path

from local import LocalError, liquibase
from local.postgres import DATABASE, OWNER, Cluster, program
from local.processes import run
from local.template import FAST_SETTINGS


def main() -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="walletsvc-") as folder:
            cluster = Cluster(Path(folder) / "cluster", FAST_SETTINGS)
            cluster.create()
            with cluster:
                check_roundtrip(cluster)
    except LocalError as error:
        sys.exit(f"roundtrip: {error}")
    print("The changelogs apply, roll back to an empty schema and apply again.")


def check_roundtrip(cluster: Cluster) -> None:
    cluster.prepare_roles()
    url = cluster.url(OWNER)
    empty = schema(cluster)
    liquibase.update(url)
    full = schema(cluster)
    liquibase.rollback_all(url)
    compare("remaining after the rollback", empty, schema(cluster))
    liquibase.update(url)
    compare("different after the second update", full, schema(cluster))


def schema(cluster: Cluster) -> str:
    # Without a fixed key, no two dumps would be equal.
    options = ["--schema-only", "--restrict-key=roundtrip", "--exclude-table=databasechangelog*"]
    return run([program("pg_dump"), *options], env=cluster.client(DATABASE))


def compare(title: str, expected: str, found: str) -> None:
    difference = unified_diff(expected.splitlines(), found.splitlines(), n=1, lineterm="")
    if lines := list(difference)[2:]:
        raise LocalError("\n".join([title, *lines]))


if __name__ == "__main__":
    main()
