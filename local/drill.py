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
from local.postgres import DATABASE, OWNER, SUPERUSER, Cluster, chown_from_root, free_port, program
from local.processes import run
from local.run import START_TIMEOUT_SECONDS, watch
from local.service import Address, Service, environment, manage
from local.steps import step
from local.traffic import Traffic, traffic

OPERATIONS = 3000
RESTORE_POINT = "drill"
DIFFERENCE_TEXT = "the ledger says"  # verify_ledger prints it for a wallet that differs from the ledger


@dataclass(frozen=True)
class RecoveryPoint:
    """A time by the database's clock, and the operations around it."""

    at: str
    answered: frozenset[str]  # ids, before the time
    sent: frozenset[str]  # ids, until the time: those without a response may have committed later

    @property
    def targets(self) -> dict[str, dict[str, str]]:
        """Return PostgreSQL's settings for each way to name the point."""
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
    print(f"The ledger was restored to its state before the accident: {time.monotonic() - started:.1f} s")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="restore-drill", description=__doc__)
    parser.add_argument(
        "--operations",
        type=int,
        default=OPERATIONS,
        help="operations in each of three phases (default: %(default)s)",
    )
    return parser.parse_args(arguments)


class Drill:
    def __init__(self, folder: Path) -> None:
        self.backup = folder / "backup"
        self.archive = folder / "archive"
        self._folder = folder
        self._primary = Cluster(folder / "primary", self._archiving())

    def run(self, operations: int) -> None:
        point = self.back_up_under_load(operations)
        for name, target in point.targets.items():
            with self.restored(name, target) as cluster:
                check(cluster, point)

    def back_up_under_load(self, operations: int) -> RecoveryPoint:
        """Take a base backup and archive the log under load, then damage the ledger."""
        with ExitStack() as stack:
            with step("a database that archives its log"):
                template.copy(self._primary.folder)
                self.archive.mkdir()
                chown_from_root(self.archive)
                start(self._primary, stack)
            with serving(self._primary) as address, traffic(address) as load:
                point = self._back_up(load, operations)
            with step("the accident, an UPDATE without a WHERE; verify_ledger detects it"):
                change_by_accident(self._primary)
                require_detected(self._primary)
        return point  # the shutdown has archived the last part of the log

    @contextmanager
    def restored(self, name: str, target: Mapping[str, str]) -> Iterator[Cluster]:
        """Restore the backup and the log up to the target, and start the database."""
        recovery = {
            "restore_command": f"cp {quote(str(self.archive))}/%f %p",
            "recovery_target_action": "promote",
            "hot_standby": "off",  # so that it is ready only after the restore
            **target,
        }
        cluster = Cluster(self._folder / name.replace(" ", "-"), recovery)
        with ExitStack() as stack:
            with step(f"restore to {name}: the backup, and the log up to it"):
                cluster.folder.mkdir()
                copy(self.backup, cluster.data)
                copy(self._primary.folder / "passwords", cluster.folder / "passwords")
                (cluster.data / "recovery.signal").touch()
                start(cluster, stack)
            yield cluster

    def _archiving(self) -> dict[str, str]:
        file = f"{quote(str(self.archive))}/%f"
        return {"archive_mode": "on", "archive_command": f"test ! -e {file} && cp %p {file}"}

    def _back_up(self, load: Traffic, operations: int) -> RecoveryPoint:
        with step(f"{operations:,} operations"):
            load.wait_for(operations)
        with step(f"a base backup during operations, and {operations:,} more"):
            self._base_backup()
            load.wait_for(operations)
        point = self._create_recovery_point(load)
        with step(f"the recovery point: {point.at}; {operations:,} more operations"):
            load.wait_for(operations)
        return point

    def _base_backup(self) -> None:
        backup = [program("pg_basebackup"), "--pgdata", str(self.backup), "--checkpoint", "fast"]
        run(backup, env=self._primary.client(DATABASE))

    def _create_recovery_point(self, load: Traffic) -> RecoveryPoint:
        answered = frozenset(load.answered)
        with psycopg.connect(self._primary.url(SUPERUSER), autocommit=True) as db:
            db.execute("SELECT pg_create_restore_point(%s)", [RESTORE_POINT])
            at = db.execute("SELECT clock_timestamp()::text").fetchall()[0][0]
        return RecoveryPoint(at, answered, sent=frozenset(load.sent))


def start(cluster: Cluster, stack: ExitStack) -> None:
    stack.callback(cluster.stop)
    cluster.start()


# --- The service on a cluster -----------------------------------------------------------------------
def settings(cluster: Cluster, address: Address) -> dict[str, str]:
    """Return the environment. It overrides exported settings: the clients have no keys and no rate limits."""
    own = {"API_ACCESS": "open", "RATE_LIMIT_ADDRESS": "off", "HTTPS": "off", "LOG_LEVEL": "WARNING"}
    return environment(cluster.url(), address) | own | {"BIND": address.bind, "ALLOWED_HOSTS": address.host}


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    address = Address("127.0.0.1", free_port())
    service = Service(address, settings(cluster, address))
    try:
        with step("the service"):
            watch(
                {"the service": service.process},
                until=service.is_ready,
                timeout_seconds=START_TIMEOUT_SECONDS,
            )
        yield address.bind
    finally:
        service.stop()


def verify(cluster: Cluster) -> str:
    """Run verify_ledger. Raises LocalError if a wallet differs from the ledger."""
    return manage(settings(cluster, Address("127.0.0.1", 1)), "verify_ledger").strip()


def change_by_accident(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(OWNER)) as db:
        db.execute("UPDATE wallet SET balance = balance + 1000")


def require_detected(cluster: Cluster) -> None:
    """Raise LocalError unless verify_ledger detects the accident."""
    try:
        verify(cluster)
    except LocalError as error:
        if DIFFERENCE_TEXT in str(error):
            return
        raise
    raise LocalError("verify_ledger has not detected the accident")


# --- Checks of a restored database ------------------------------------------------------------------
def check(restored: Cluster, point: RecoveryPoint) -> None:
    with step("manage.py verify_ledger"):
        verdict = verify(restored)
    with psycopg.connect(restored.url(SUPERUSER)) as db:
        # The clients choose all ids except those of TRANSFER_IN.
        rows = db.execute("SELECT id::text FROM operation WHERE type <> 'TRANSFER_IN'").fetchall()
    compare({row[0] for row in rows}, point)
    print(f"          {verdict}")
    print(f"          all {len(point.answered):,} operations answered before the point, none sent after it")


def compare(found: set[str], point: RecoveryPoint) -> None:
    """Raise LocalError if an answered operation is missing, or one sent after the point exists."""
    if missing := point.answered - found:
        raise LocalError(
            f"{len(missing):,} operations that were answered before the recovery point are missing"
        )
    if late := found - point.sent:
        raise LocalError(f"{len(late):,} operations exist that were sent after the recovery point")


def copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--reflink=auto", str(source), str(target)])


if __name__ == "__main__":
    main()
