"""Two PostgreSQL servers, a primary and its synchronous standby, each on a disk that tests can fill."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from local import LocalError, template
from local.postgres import DATABASE, SUPERUSER, Cluster, chown_from_root, program
from local.processes import run
from tests.support.faults.database import children, quiet_port

TIMEOUT_SECONDS = 60.0
DISK_MB = 1024
STANDBY = "standby"  # its application_name
SETTINGS = {
    "max_wal_size": "192MB",
    "wal_keep_size": "256MB",  # a standby can catch up after an outage
    "wal_recycle": "off",  # the next log segment needs new disk space
    "wal_retrieve_retry_interval": "200ms",
    "checkpoint_timeout": "30s",
    "dynamic_shared_memory_type": "mmap",  # files left by a crash are in the folder
}


def wait_until(happens: Callable[[], object], what: str, seconds: float = TIMEOUT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            raise LocalError(f"after {seconds:.0f} s: {what}")
        time.sleep(0.05)


@cache
def can_mount() -> bool:
    """Return whether this user may mount a small file system."""
    with tempfile.TemporaryDirectory(prefix="walletsvc-mount-") as folder, Disk(Path(folder)) as disk:
        return disk.is_mounted


class Disk:
    """A folder with its own file system in memory, if this user may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = False

    def __enter__(self) -> "Disk":
        self.folder.mkdir(exist_ok=True)
        with suppress(LocalError):
            run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}M,mode=0755", "tmpfs", str(self.folder)])
            self.is_mounted = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_mounted:
            run(["umount", "--lazy", str(self.folder)])  # an ending process may still use it
            self.is_mounted = False

    def fill(self) -> None:
        """Shrink the file system to its content."""
        assert self.is_mounted, "that would fill the whole machine's"
        wait_until(self._has_shrunk, "the disk is written to all the time")

    def _has_shrunk(self) -> bool:
        status = os.statvfs(self.folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        with suppress(LocalError):  # more has been written since
            run(["mount", "-o", f"remount,size={used}", str(self.folder)])
            return True
        return False

    def free(self) -> None:
        run(["mount", "-o", f"remount,size={DISK_MB}M", str(self.folder)])


class Node:
    """One server and its disk."""

    def __init__(self, folder: Path) -> None:
        self.disk = Disk(folder)
        self.cluster = Cluster(folder / "postgres", SETTINGS | {"port": str(quiet_port())})

    @property
    def name(self) -> str:
        return self.disk.folder.name

    @property
    def is_running(self) -> bool:
        return self.cluster.process is not None and self.cluster.process.poll() is None

    def ensure_started(self) -> None:
        """Restart the server if it was killed or has stopped, and wait until it accepts connections."""
        if not self.is_running:
            self.cluster.start()
        wait_until(self.answers, f"{self.name} does not answer")

    def answers(self) -> bool:
        try:
            return self.ask("SELECT true", seconds=5)[0][0] is True
        except psycopg.Error:
            return False

    def processes(self) -> list[int]:
        """Return the process ids of the server, the postmaster first."""
        assert self.cluster.process
        pid = self.cluster.process.pid
        with suppress(OSError):
            return [pid, *children(pid)]
        return [pid]

    def signal_all(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes: the kernel accepts connections, and the server does not respond."""
        self.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_all(signal.SIGCONT)

    def crash(self) -> None:
        """Kill only the postmaster; the other processes notice that."""
        assert self.cluster.process
        self.cluster.process.kill()
        self.cluster.process.wait(TIMEOUT_SECONDS)

    def lose(self) -> None:
        """Kill all processes, as in a power failure."""
        self.signal_all(signal.SIGSTOP)  # stopped processes cannot fork
        self.signal_all(signal.SIGKILL)
        assert self.cluster.process
        self.cluster.process.wait(TIMEOUT_SECONDS)

    def backends(self, role: str) -> list[int]:
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE usename = %s", role)
        return [row[0] for row in rows]

    def ask(self, statement: str, *parameters: object, seconds: float = 10) -> list[tuple[Any, ...]]:
        """Run a query as the superuser. Raises psycopg.Error if no response arrives in time."""
        with self.connect(seconds) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def connect(self, seconds: float) -> psycopg.Connection:
        return psycopg.connect(
            self.cluster.url(SUPERUSER, DATABASE),
            autocommit=True,
            connect_timeout=max(2, int(seconds)),
            tcp_user_timeout=int(seconds * 1000),
            options=f"-c statement_timeout={int(seconds * 1000)} -c synchronous_commit=local",
        )


class Pair:
    """A primary and its synchronous standby, which confirms every commit.

    A failover loses no answered operation, because a round waits for the standby before the failover.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self.nodes: list[Node] = []

    def __enter__(self) -> "Pair":
        try:
            self.primary = self._new()
            template.copy(self.primary.cluster.folder)
            self.primary.cluster.start()
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            self._remove(node)

    def keep(self, to: Path) -> None:
        """Copy both data folders for an investigation."""
        for node in (self.primary, self.standby):
            node.cluster.stop()
            run(["cp", "-a", str(node.cluster.folder), str(to / node.name)])

    def fail_over(self, seconds: float) -> None:
        self.primary.lose()
        time.sleep(seconds)
        self.standby.ask("SELECT pg_promote(true, %s)", int(TIMEOUT_SECONDS), seconds=TIMEOUT_SECONDS)
        self.primary = self.standby

    def renew_standby(self) -> None:
        """Build a standby from a backup of the primary, which commits alone until it is ready."""
        for node in [node for node in self.nodes if node is not self.primary]:
            self._remove(node)
            self.nodes.remove(node)
        self._attach()

    def wait_for_standby(self) -> None:
        """Wait until the standby has everything that the primary has."""
        reached = self.primary.ask("SELECT pg_current_wal_flush_lsn()::text")[0][0]
        wait_until(lambda: self._standby_has(reached), "the standby does not come back")

    def _standby_has(self, reached: str) -> bool:
        rows = self.primary.ask(
            "SELECT flush_lsn >= %s::pg_lsn AND sync_state = 'sync' FROM pg_stat_replication"
            " WHERE application_name = %s AND state = 'streaming'",
            reached,
            STANDBY,
        )
        return rows == [(True,)]

    def _attach(self) -> None:
        self.standby = self._new()
        cluster = self.standby.cluster
        cluster.folder.mkdir()
        run(["cp", "-a", str(self.primary.cluster.folder / "passwords"), str(cluster.folder / "passwords")])
        backup = [program("pg_basebackup"), "--pgdata", str(cluster.data), "--checkpoint", "fast"]
        named = self.primary.cluster.client(DATABASE) | {"PGAPPNAME": STANDBY}
        run([*backup, "--write-recovery-conf"], env=named)
        chown_from_root(cluster.data)
        cluster.start()
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        self.primary.ask("SELECT pg_reload_conf()")
        self.wait_for_standby()

    def _new(self) -> Node:
        node = Node(self._folder / f"node-{next(self._numbers)}")
        self.nodes.append(node)
        node.disk.__enter__()
        return node

    def _remove(self, node: Node) -> None:
        if node.is_running:
            node.signal_all(signal.SIGCONT)
            node.signal_all(signal.SIGQUIT)
        node.cluster.stop()
        node.disk.__exit__()
        shutil.rmtree(node.disk.folder, ignore_errors=True)
