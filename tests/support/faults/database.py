"""A PostgreSQL server that tests break. After a restart it has the same address."""

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from local import template
from local.postgres import APPLICATION, DATABASE, SUPERUSER


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def quiet_port() -> int:
    """Return a free port outside the range of outgoing connections, so it is still free after a restart."""
    first_of_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first_of_outgoing)  # noqa: S311
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Database:
    def __init__(self, folder: Path) -> None:
        self.services = 0  # services that use it now
        self.cluster = template.copy(folder)
        self.cluster.parameters["port"] = str(quiet_port())

    def start(self) -> None:
        self.cluster.start()

    def stop(self) -> None:
        self.cluster.stop()

    @property
    def postmaster(self) -> int:
        assert self.cluster.process
        return self.cluster.process.pid

    def end(self, number: signal.Signals) -> None:
        """Stop the server by this signal: SIGINT is a fast shutdown, SIGQUIT an immediate one."""
        assert self.cluster.process
        self.cluster.process.send_signal(number)
        self.cluster.process.wait()

    def backends(self) -> list[int]:
        """Return the process ids of the service's backends."""
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE usename = %s", APPLICATION)
        return [row[0] for row in rows]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the processes: the kernel accepts connections, and the server does not respond."""
        processes = [self.postmaster, *children(self.postmaster)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    @contextmanager
    def locked(self, wallet_id: str) -> Iterator[None]:
        """Lock the wallet's row in another session."""
        with self.connect() as connection:
            connection.execute("SELECT 1 FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
            yield
            connection.rollback()

    def ask(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.cluster.url(SUPERUSER, DATABASE))

    def expect_at_most(self, connections: int) -> None:
        """Wait until there are at most `connections`; those of killed processes end after a moment."""
        deadline = time.monotonic() + 10
        while len(self.backends()) > connections:
            assert time.monotonic() < deadline, f"{len(self.backends())} connections, not {connections}"
            time.sleep(0.05)
