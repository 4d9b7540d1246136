"""`make run`: its output, its shutdown, and a start after a crash."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from local import ROOT, jars, liquibase
from local.postgres import free_port

UP = "Ctrl-C stops everything"


class Supervisor:
    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.run"],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def read(self, until: str | None = None) -> str:
        """Return the output up to a line with `until`, or up to the end."""
        assert self.process.stdout
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if until and until in line:
                break
        return "".join(lines)

    @property
    def postgres(self) -> int:
        return int((self.home / ".local/postgres/data/postmaster.pid").read_text().split()[0])

    @property
    def gunicorn(self) -> int:
        return self._child("gunicorn")

    @property
    def inbox(self) -> int:
        return self._child("process_inbox")

    @property
    def parts(self) -> tuple[int, ...]:
        return self.postgres, self.gunicorn, self.inbox

    def _child(self, name: str) -> int:
        """Return the child with this name. Waits: its command line is empty while a program starts."""
        own = self.process.pid
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for child in Path(f"/proc/{own}/task/{own}/children").read_text().split():
                if name in Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
            time.sleep(0.01)
        raise AssertionError(f"the supervisor has no child {name}")


@contextmanager
def supervisor(home: Path, port: int) -> Iterator[Supervisor]:
    started = Supervisor(home, port)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
        assert started.process.stdout
        started.process.stdout.close()
        started.process.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without its data. Only the downloaded Liquibase is shared."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("liquibase", "local", "wallets", "walletsvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    (folder / ".local").mkdir()
    liquibase.command()
    if jars.FOLDER.exists():
        (folder / ".local" / jars.FOLDER.name).symlink_to(jars.FOLDER)
    return folder


@pytest.fixture(scope="module")
def first_start(home: Path, port: int) -> str:
    """The output of the first start, which has ended."""
    with supervisor(home, port) as run:
        printed = run.read(until=UP)
        run.process.terminate()
        return printed + run.read()


def curl_lines(printed: str) -> list[list[str]]:
    return [shlex.split(line) for line in printed.splitlines() if line.strip().startswith("curl ")]


def curl(command: list[str]) -> str:
    return subprocess.run([*command, "-s", "-S"], capture_output=True, text=True, check=True).stdout


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for_end(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "still running"
        time.sleep(0.05)


def balance(wallet: str) -> Decimal:
    return Decimal(json.loads(wallet)["balance"])


@pytest.mark.slow
def test_second_start_keeps_the_data(home: Path, port: int, first_start: str) -> None:
    with supervisor(home, port) as run:
        printed = run.read(until=UP)
    assert "with the password" in first_start
    assert "password" not in printed
    assert curl_lines(printed) == curl_lines(first_start)


@pytest.mark.usefixtures("first_start")
@pytest.mark.brokers
def test_printed_commands_work(home: Path, port: int) -> None:
    with supervisor(home, port) as run:
        deposit, wallet, operations = curl_lines(run.read(until=UP))
        before = balance(curl(wallet))
        answer = json.loads(curl(deposit))
        assert balance(curl(wallet)) == before + 10
        assert json.loads(curl(operations))["items"][0] == answer


@pytest.mark.usefixtures("first_start")
@pytest.mark.slow
def test_asynchronous_operation_is_executed(home: Path, port: int) -> None:
    with supervisor(home, port) as run:
        deposit, wallet, _ = curl_lines(run.read(until=UP))
        before = balance(curl(wallet))
        accepted = json.loads(curl([*deposit, "-H", "Prefer: respond-async"]))
        assert accepted["status"] == "PENDING"
        deadline = time.monotonic() + 20
        while balance(curl(wallet)) == before:
            assert time.monotonic() < deadline, "the inbox is not drained"
            time.sleep(0.05)
        assert balance(curl(wallet)) == before + 10


@pytest.mark.usefixtures("first_start")
@pytest.mark.slow
def test_printed_mail_link_works(home: Path, port: int) -> None:
    address = f"http://127.0.0.1:{port}"
    with supervisor(home, port) as run:
        run.read(until=UP)
        email = f"anna-{uuid4()}@example.com"
        person = {"name": "Anna", "email": email, "password": "correct horse battery"}
        sign_up = ["curl", f"{address}/api/v1/signup", "-H", "Content-Type: application/json"]
        assert json.loads(curl([*sign_up, "-d", json.dumps(person)]))["emailVerified"] is False
        link = run.read(until=f"{address}/email/verify/").splitlines()[-1]
        assert email in curl(["curl", link])


@pytest.mark.usefixtures("first_start")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_signal_stops_all_processes_in_order(home: Path, port: int, number: signal.Signals) -> None:
    with supervisor(home, port) as run:
        run.read(until=UP)
        parts = run.parts
        os.killpg(run.process.pid, number)  # to the whole foreground group, as a terminal does
        assert run.read().rstrip().endswith("Stopped.")
        assert run.process.wait() == 0
        assert not any(map(is_alive, parts))
    assert "database system is shut down" in (home / ".local/postgres/postgres.log").read_text()


@pytest.mark.usefixtures("first_start")
@pytest.mark.slow
def test_start_works_after_kill_9_of_the_supervisor(home: Path, port: int) -> None:
    with supervisor(home, port) as killed:
        killed.read(until=UP)
        parts = killed.parts
        killed.process.kill()
        with supervisor(home, port) as run:
            assert UP in run.read(until=UP)
            wait_for_end(*parts)


@pytest.mark.usefixtures("first_start")
@pytest.mark.parametrize(
    ("part", "name"), [("postgres", "PostgreSQL"), ("gunicorn", "the service"), ("inbox", "the inbox")]
)
@pytest.mark.slow
def test_death_of_a_process_stops_the_others(home: Path, port: int, part: str, name: str) -> None:
    with supervisor(home, port) as run:
        run.read(until=UP)
        parts = run.parts
        os.kill(getattr(run, part), signal.SIGKILL)
        assert f"walletsvc: {name} ended unexpectedly (SIGKILL)\n" in run.read()
        assert run.process.wait() == 1
        wait_for_end(*parts)


@pytest.mark.usefixtures("first_start")
@pytest.mark.slow
def test_second_instance_is_refused(home: Path, port: int) -> None:
    with supervisor(home, port) as first:
        first.read(until=UP)
        with supervisor(home, port) as second:
            assert second.read().startswith("walletsvc: already running: ")
            assert second.process.wait() == 1
        assert first.process.poll() is None


def test_busy_port_is_a_one_line_error(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with supervisor(home, port) as run:
            assert run.read() == f"walletsvc: port {port} is busy; choose another: PORT={port + 1} make run\n"
            assert run.process.wait() == 1
