"""A Redis server on a free port of 127.0.0.1, without persistence."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from local import LocalError
from local.postgres import free_port
from local.processes import ending_with_parent, stop

START_TIMEOUT_SECONDS: Final = 10.0


def program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        raise LocalError("the program redis-server is missing: apt-get install redis-server")
    return found


class Cache:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        listen = ("--bind", "127.0.0.1", "--port", str(self.port))
        self.process = subprocess.Popen(  # noqa: S603
            ending_with_parent(
                [program(), *listen, "--save", "", "--appendonly", "no", "--loglevel", "warning"]
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # its start message
            start_new_session=True,  # only the benchmark gets a Ctrl-C; it stops the processes in order
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"redis-server does not answer on port {self.port}")
            time.sleep(0.02)

    def stop(self) -> None:
        stop(
            self.process,
            graceful=signal.SIGTERM,
            forced=signal.SIGKILL,
            timeout_seconds=START_TIMEOUT_SECONDS,
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def running() -> Iterator[Cache]:
    cache = Cache()
    try:
        cache.wait_until_ready()
        yield cache
    finally:
        cache.stop()
