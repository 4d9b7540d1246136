"""The database and the measured servers, each on a free port of 127.0.0.1."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from loadtest import cache
from loadtest.cache import Cache
from local import ROOT, template
from local.postgres import Cluster, free_port
from local.processes import ending_with_parent, stop
from local.run import START_TIMEOUT_SECONDS, watch
from local.service import STOP_TIMEOUT_SECONDS, Address, environment

# PostgreSQL's defaults, as in `make run`. The test template, which is copied, has fsync off.
DURABLE_SETTINGS = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@dataclass(frozen=True)
class ServerKind:
    """A server to measure: gunicorn's configuration, the application, and its own environment variables."""

    config: str
    application: str
    environment: tuple[tuple[str, str], ...] = ()
    has_cache: bool = False  # starts a Redis server
    is_chained: bool = True  # writes the hash chain, so that its operations can be verified


SERVICE = ServerKind("walletsvc/gunicorn.py", "walletsvc.wsgi")
KEYED = ServerKind("walletsvc/gunicorn.py", "walletsvc.wsgi", (("API_ACCESS", "key"),))
LIMITED = ServerKind(
    "walletsvc/gunicorn.py", "walletsvc.wsgi", (("API_ACCESS", "key"), ("RATE_LIMIT_KEY", "100000000/1h"))
)
UNMETERED = ServerKind("walletsvc/gunicorn.py", "walletsvc.wsgi", (("METRICS", "off"),))
UNCHAINED = ServerKind("walletsvc/gunicorn.py", "loadtest.unchained", is_chained=False)
UNGROUPED = ServerKind("walletsvc/gunicorn.py", "walletsvc.wsgi", (("GROUP_COMMIT", "off"),))
THREADS = ServerKind("loadtest/threads.py", "walletsvc.wsgi")
BARE = ServerKind("walletsvc/gunicorn.py", "loadtest.bare")
REDIS = ServerKind("walletsvc/gunicorn.py", "loadtest.cached", (("REDIS_CLIENT", "django"),), has_cache=True)
REDIS_RAW = ServerKind("walletsvc/gunicorn.py", "loadtest.cached", (("REDIS_CLIENT", "raw"),), has_cache=True)
NAIVE = ServerKind(
    "loadtest/naive/gunicorn.py",
    "loadtest.naive.wsgi",
    (("DJANGO_SETTINGS_MODULE", "loadtest.naive.settings"),),
    is_chained=False,
)


@contextmanager
def scratch_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a durable cluster with an empty database of the current schema, and delete it at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    Cluster(folder).remove()  # of a killed run; raises if a run is in progress
    cluster = Cluster(template.copy(folder).folder, DURABLE_SETTINGS)
    try:
        with cluster:
            yield cluster
    finally:
        cluster.remove()


class Server:
    """A running server of a kind."""

    def __init__(self, kind: ServerKind, database_url: str, cache: Cache | None = None) -> None:
        self.cache = cache
        self.address = Address("127.0.0.1", free_port())
        self.url = f"http://{self.address.bind}"
        command = [sys.executable, "-m", "gunicorn", "-c", kind.config, kind.application]
        self.process = subprocess.Popen(  # noqa: S603
            ending_with_parent(command, death_signal="QUIT"),
            env={
                "LOG_LEVEL": "WARNING",
                **environment(database_url, self.address),
                "BIND": self.address.bind,
                **({"REDIS_URL": cache.url} if cache else {}),
                **dict(kind.environment),
            },
            cwd=ROOT,
            start_new_session=True,  # only the benchmark gets a Ctrl-C; it stops the processes in order
        )

    def wait_until_ready(self) -> None:
        watch({"the server": self.process}, until=self._answers, timeout_seconds=START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        stop(
            self.process, graceful=signal.SIGTERM, forced=signal.SIGKILL, timeout_seconds=STOP_TIMEOUT_SECONDS
        )

    def _answers(self) -> bool:
        connection = HTTPConnection(self.address.bind, timeout=START_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/livez")
            connection.getresponse()
        except (OSError, HTTPException):
            return False
        else:
            return True
        finally:
            connection.close()


@contextmanager
def running(kind: ServerKind, database_url: str) -> Iterator[Server]:
    with ExitStack() as stack:
        server = Server(kind, database_url, stack.enter_context(cache.running()) if kind.has_cache else None)
        stack.callback(server.stop)
        server.wait_until_ready()
        yield server
