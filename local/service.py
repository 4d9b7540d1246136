"""The wallet service as `make run` starts it: its address, environment and processes."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Self

from local import ROOT, STATE, LocalError
from local.files import secret
from local.processes import ending_with_parent, error_line, run, stop

PORT_TIMEOUT_SECONDS = 3.0  # the processes of a killed run need a moment to end
STOP_TIMEOUT_SECONDS = 120.0  # for gunicorn itself, which ends its workers after GRACEFUL_TIMEOUT
LOOPBACK_OF_WILDCARD = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def from_environment(cls) -> Self:
        bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"
        host, _, port = bind.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 2**16:
            raise LocalError(f"{port} is not a port: set a number from 1 to 65535")
        return cls(host, int(port))

    @property
    def bind(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def reachable(self) -> str:
        return f"{LOOPBACK_OF_WILDCARD.get(self.host, self.host)}:{self.port}"

    def require_free(self) -> None:
        deadline = time.monotonic() + PORT_TIMEOUT_SECONDS
        while reason := self._occupied():
            if reason != errno.EADDRINUSE:
                raise LocalError(f"cannot listen on {self.bind}: {os.strerror(reason)}")
            if time.monotonic() > deadline:
                raise LocalError(f"port {self.port} is busy; choose another: PORT={self.port + 1} make run")
            time.sleep(0.1)

    def _occupied(self) -> int | None:
        with socket.socket(socket.AF_INET6 if "[" in self.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host.strip("[]"), self.port))
            except OSError as error:
                return error.errno
        return None


def environment(database_url: str, address: Address) -> dict[str, str]:
    """Return the environment variables of the service. Exported ones override the defaults unless empty."""
    defaults = {
        "SECRET_KEY": secret(STATE / "secret_key"),
        "API_ACCESS": "open",
        "ALLOWED_HOSTS": "127.0.0.1,localhost,[::1]",
        "HTTPS": "off",
        "EMAIL_URL": "consolemail://",
        "PUBLIC_URL": f"http://{address.reachable}",
        "LOG_FORMAT": "line",
        "WEBHOOK_TARGETS": "any",
        "BIND": address.bind,
    }
    exported = {name: value for name, value in os.environ.items() if value}
    return (
        defaults | exported | {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "walletsvc.settings"}
    )


def manage(env: dict[str, str], command: str, *arguments: str) -> str:
    """Run a manage.py command and return its standard output."""
    return run(
        [sys.executable, "manage.py", command, *arguments],
        env=env,
        cwd=ROOT,
        explain=lambda output: f"manage.py {command} failed: {error_line(output)}",
    )


class ServiceProcess:
    """A process of the service."""

    def __init__(self, command: list[str], death_signal: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            ending_with_parent([sys.executable, *command], death_signal),
            env=env,
            cwd=ROOT,
            start_new_session=True,  # only the supervisor gets a Ctrl-C; it stops the processes in order
        )

    def stop(self) -> None:
        stop(
            self.process, graceful=signal.SIGTERM, forced=signal.SIGKILL, timeout_seconds=STOP_TIMEOUT_SECONDS
        )


class InboxProcess(ServiceProcess):
    """Executes operations that the service accepted asynchronously."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(["manage.py", "process_inbox"], "KILL", env)


class RelayProcess(ServiceProcess):
    """Delivers events to subscribers."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(["manage.py", "relay_events"], "KILL", env)


class Service(ServiceProcess):
    def __init__(self, address: Address, env: dict[str, str]) -> None:
        self.address = address
        gunicorn = ["-m", "gunicorn", "-c", "walletsvc/gunicorn.py", "walletsvc.wsgi"]
        super().__init__(gunicorn, "QUIT", env)  # immediate shutdown: the database ends with the parent too

    def is_ready(self) -> bool:
        connection = HTTPConnection(self.address.reachable, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
