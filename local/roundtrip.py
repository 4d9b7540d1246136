"""Every changelog can be undone: update, roll back everything, update again, and compare the schemas."""

import sys
import tempfile
from difflib import unified_diff
from pathlib import Path

from local import LocalError, liquibase
from local.postgres import DATABASE, OWNER, Cluster, program
from local.processes import run
from local.template import FAST


def main() -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="walletsvc-") as folder:
            cluster = Cluster(Path(folder) / "cluster", FAST)
            cluster.create()
            with cluster:
                go_round(cluster)
    except LocalError as error:
        sys.exit(f"roundtrip: {error}")
    print("The changelogs apply, roll back to nothing and apply again.")


def go_round(cluster: Cluster) -> None:
    cluster.prepare_roles()
    url = cluster.url(OWNER)
    empty = schema(cluster)
    liquibase.update(url)
    full = schema(cluster)
    liquibase.rollback_all(url)
    compare("left after the rollback", empty, schema(cluster))
    liquibase.update(url)
    compare("different after the second update", full, schema(cluster))


def schema(cluster: Cluster) -> str:
    # Without a fixed key every dump would differ from every other.
    options = ["--schema-only", "--restrict-key=roundtrip", "--exclude-table=databasechangelog*"]
    return run([program("pg_dump"), *options], env=cluster.client(DATABASE))


def compare(what: str, expected: str, found: str) -> None:
    difference = unified_diff(expected.splitlines(), found.splitlines(), n=1, lineterm="")
    if lines := list(difference)[2:]:
        raise LocalError("\n".join([what, *lines]))


if __name__ == "__main__":
    main()
