"""How fast the whole ledger is verified, by what it costs: seconds of one core, the database's included."""

import re
import resource
from dataclasses import dataclass

import psycopg

from loadtest import machine
from local.postgres import SUPERUSER, Cluster
from local.service import manage


@dataclass(frozen=True)
class Verified:
    operations: int
    seconds: float  # of one core
    told: str

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    def __str__(self) -> str:
        return f"{self.told}: {self.rate:,.0f} a second on one core"


def run(cluster: Cluster, env: dict[str, str]) -> Verified:
    """Verify the ledger. Raises LocalError if a wallet differs from it.

    As every ledger of some age it has statistics; without them PostgreSQL sorts what it has in order.
    """
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
        db.execute("VACUUM (ANALYZE)")
    before = _cpu_seconds(cluster)
    told = manage(env, "verify_ledger").strip()
    seconds = _cpu_seconds(cluster) - before
    found = re.match(r"(\d+) operations", told)
    return Verified(int(found[1]) if found else 0, seconds, told)


def _cpu_seconds(cluster: Cluster) -> float:
    assert cluster.process
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine.cpu_seconds(cluster.process.pid) + children.ru_utime + children.ru_stime
