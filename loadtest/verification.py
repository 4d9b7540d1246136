"""Measures the verification of the whole ledger, in CPU seconds of the command and the database."""

import re
import resource
from dataclasses import dataclass

import psycopg

from loadtest import machine
from local.postgres import SUPERUSER, Cluster
from local.service import manage


@dataclass(frozen=True)
class Verification:
    operations: int
    seconds: float  # of CPU time
    output: str

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    def __str__(self) -> str:
        return f"{self.output}: {self.rate:,.0f} a second on one core"


def run(cluster: Cluster, env: dict[str, str]) -> Verification:
    """Verify the ledger. Raises LocalError if a wallet differs from it.

    Collects statistics first, as autovacuum would: without them PostgreSQL sorts rows that are in order.
    """
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
        db.execute("VACUUM (ANALYZE)")
    before = _cpu_seconds(cluster)
    output = manage(env, "verify_ledger").strip()
    seconds = _cpu_seconds(cluster) - before
    found = re.match(r"(\d+) operations", output)
    return Verification(int(found[1]) if found else 0, seconds, output)


def _cpu_seconds(cluster: Cluster) -> float:
    assert cluster.process
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine.cpu_seconds(cluster.process.pid) + children.ru_utime + children.ru_stime
