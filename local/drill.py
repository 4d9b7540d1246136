"""`make restore-drill`: takes a base backup, loses data, and restores the ledger before the loss.

It runs under load in a temporary folder and touches no other database.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import psycopg

from local import LocalError, template
from local.files import plain_errors
from local.postgres import DATABASE, OWNER, SUPERUSER, Cluster, free_port, give_away, program
from local.processes import run
from local.run import START_TIMEOUT_SECONDS, watch
from local.service import Address, Service, environment, manage
from local.steps import step
from local.traffic import Traffic, traffic

OPERATIONS = 3000
RESTORE_POINT = "drill"
FOUND = "the ledger says"  # what verify_ledger says of a wallet that differs from it


@dataclass(frozen=True)
class RecoveryPoint:
    """A time by the database's clock, and the operations before and after it."""

    at: str
    answered: frozenset[str]  # before it
    sent: frozenset[str]  # up to it: those without a response may be before or after it

    @property
    def targets(self) -> dict[str, dict[str, str]]:
        """The ways to name it to PostgreSQL."""
        return {
            "the time": {"recovery_target_time": self.at},
            "the restore point": {"recovery_target_name": RESTORE_POINT},
        }


def main() -> None:
    options = parse(sys.argv[1:])
    started = time.monotonic()
    try:
        with plain_errors(), tempfile.TemporaryDirectory(prefix="walletsvc-drill-") as folder:
            Drill(Path(folder)).run(options.operations)
    except LocalError as error:
        sys.exit(f"restore-drill: {error}")
    except KeyboardInterrupt:
        sys.exit("restore-drill: stopped")
    print(f"The ledger was restored to the moment before the accident: {time.monotonic() - started:.1f} s")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="restore-drill", description=__doc__)
    parser.add_argument(
        "--operations", type=int, default=OPERATIONS, help="in each of three phases (default: %(default)s)"
    )
    return parser.parse_args(arguments)


class Drill:
    def __init__(self, folder: Path) -> None:
        self.backup = folder / "backup"
        self.archive = folder / "archive"
        self._folder = folder
        self._primary = Cluster(folder / "primary", self._archiving())

    def run(self, operations: int) -> None:
        moment = self.live(operations)
        for name, target in moment.targets.items():
            with self.restored(name, target) as cluster:
                check(cluster, moment)

    def live(self, operations: int) -> RecoveryPoint:
        """Take the base backup, and archive the log under load."""
        with ExitStack() as stack:
            with step("a database with the schema, which archives its log"):
                template.copy(self._primary.folder)
                self.archive.mkdir()
                give_away(self.archive)
                start(self._primary, stack)
            with serving(self._primary) as address, traffic(address) as flowing:
                moment = self._back_up(flowing, operations)
            with step("the accident, an UPDATE without a WHERE, which verify_ledger notices"):
                change_by_accident(self._primary)
                require_noticed(self._primary)
        return moment  # an orderly end has archived the last of the log

    @contextmanager
    def restored(self, name: str, target: Mapping[str, str]) -> Iterator[Cluster]:
        """Start the restored database."""
        recovery = {
            "restore_command": f"cp {quote(str(self.archive))}/%f %p",
            "recovery_target_action": "promote",
            "hot_standby": "off",  # so that it is ready when it is restored, no sooner
            **target,
        }
        cluster = Cluster(self._folder / name.replace(" ", "-"), recovery)
        with ExitStack() as stack:
            with step(f"restored to {name}: the backup, and the log up to there"):
                cluster.folder.mkdir()
                copy(self.backup, cluster.data)
                copy(self._primary.folder / "passwords", cluster.folder / "passwords")
                (cluster.data / "recovery.signal").touch()
                start(cluster, stack)
            yield cluster

    def _archiving(self) -> dict[str, str]:
        file = f"{quote(str(self.archive))}/%f"
        return {"archive_mode": "on", "archive_command": f"test ! -e {file} && cp %p {file}"}

    def _back_up(self, flowing: Traffic, operations: int) -> RecoveryPoint:
        with step(f"{operations:,} operations"):
            flowing.wait_for(operations)
        with step(f"a base backup, while operations go on, and {operations:,} more"):
            self._base_backup()
            flowing.wait_for(operations)
        moment = self._moment(flowing)
        with step(f"the moment: {moment.at}; {operations:,} more operations"):
            flowing.wait_for(operations)
        return moment

    def _base_backup(self) -> None:
        backup = [program("pg_basebackup"), "--pgdata", str(self.backup), "--checkpoint", "fast"]
        run(backup, env=self._primary.client(DATABASE))

    def _moment(self, flowing: Traffic) -> RecoveryPoint:
        answered = frozenset(flowing.answered)
        with psycopg.connect(self._primary.url(SUPERUSER), autocommit=True) as db:
            db.execute("SELECT pg_create_restore_point(%s)", [RESTORE_POINT])
            at = db.execute("SELECT clock_timestamp()::text").fetchall()[0][0]
        return RecoveryPoint(at, answered, sent=frozenset(flowing.sent))


def start(cluster: Cluster, stack: ExitStack) -> None:
    stack.callback(cluster.stop)
    cluster.start()


# --- The service on a cluster -----------------------------------------------------------------------
def settings(cluster: Cluster, address: Address) -> dict[str, str]:
    """Override exported settings: the customers have no keys and no rate limits."""
    own = {"API_ACCESS": "open", "RATE_LIMIT_ADDRESS": "off", "HTTPS": "off", "LOG_LEVEL": "WARNING"}
    return environment(cluster.url(), address) | own | {"BIND": address.bind, "ALLOWED_HOSTS": address.host}


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    address = Address("127.0.0.1", free_port())
    service = Service(address, settings(cluster, address))
    try:
        with step("the service on it"):
            watch({"the service": service.process}, until=service.is_ready, patience=START_TIMEOUT_SECONDS)
        yield address.bind
    finally:
        service.stop()


def verify(cluster: Cluster) -> str:
    """Verify the ledger. Raises LocalError if a wallet differs from it."""
    return manage(settings(cluster, Address("127.0.0.1", 1)), "verify_ledger").strip()


def change_by_accident(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(OWNER)) as db:
        db.execute("UPDATE wallet SET balance = balance + 1000")


def require_noticed(cluster: Cluster) -> None:
    """Require that the original database is stopped; otherwise the checks could read it."""
    try:
        verify(cluster)
    except LocalError as error:
        if FOUND in str(error):
            return
        raise
    raise LocalError("verify_ledger has not noticed the accident")


# --- What was restored ------------------------------------------------------------------------------
def check(restored: Cluster, moment: RecoveryPoint) -> None:
    with step("manage.py verify_ledger"):
        verdict = verify(restored)
    with psycopg.connect(restored.url(SUPERUSER)) as db:
        # The target's side of a transfer has an id of the service's.
        rows = db.execute("SELECT id::text FROM operation WHERE type <> 'TRANSFER_IN'").fetchall()
    compare({row[0] for row in rows}, moment)
    print(f"          {verdict}")
    print(f"          all {len(moment.answered):,} operations answered before the moment, none sent after it")


def compare(found: set[str], moment: RecoveryPoint) -> None:
    """Raise LocalError if an operation before the moment is missing, or a later one exists."""
    if missing := moment.answered - found:
        raise LocalError(f"{len(missing):,} operations that were answered before the moment are missing")
    if late := found - moment.sent:
        raise LocalError(f"{len(late):,} operations are there that were sent after the moment")


def copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--reflink=auto", str(source), str(target)])


if __name__ == "__main__":
    main()
