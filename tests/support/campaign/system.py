"""The whole system under test: service, inbox workers, relay, receiver, a proxy and two databases."""

import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from local import ROOT, LocalError
from local.postgres import DATABASE
from local.processes import ending_with_parent, error_line
from local.service import Address
from tests.support.campaign.nodes import TIMEOUT_SECONDS, Pair, wait_until
from tests.support.faults.database import children, quiet_port
from tests.support.faults.proxy import Proxy
from tests.support.histories.load import sharing_low_half
from tests.support.receivers import receiver

WORKERS = 2
INBOXES = 2
SETTINGS = {
    "SECRET_KEY": "campaign-" * 10,
    "API_ACCESS": "open",
    "ALLOWED_HOSTS": "127.0.0.1,localhost",
    "HTTPS": "off",
    "WEBHOOK_TARGETS": "any",
    "LOG_FORMAT": "line",
    "DJANGO_SETTINGS_MODULE": "walletsvc.settings",
    "WORKERS": str(WORKERS),
    "OPERATION_DEADLINE": "6",  # some faults last longer
}


def faking_library() -> Path | None:
    """Return the library of Debian's package `faketime`, or None if it is not installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class Clock:
    """The wall clock of the service. Its monotonic clock is unchanged."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set the offset from now on. Replace the file atomically, so that no reader sees half of it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        if (library := faking_library()) is None:
            return {}
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(Path(__file__).parent / "clock"),
        }


class Part:
    """A process of the system with its output in a file. It ends with this process."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.is_wanted = False
        self.deaths = 0  # unexpected ones
        self._command = [sys.executable, *command]
        self._env = dict(env)
        self._log = log
        self._left: list[int] = []  # pidfds of the workers of killed masters
        self._pids: list[int] = []

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                ending_with_parent(self._command),
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._pids.append(self.process.pid)
        self.is_wanted = True

    def kill(self) -> None:
        """Kill only this process; its children, such as gunicorn's workers, notice that."""
        self.is_wanted = False
        self._remember_children()
        self.process.kill()
        self.process.wait(TIMEOUT_SECONDS)

    def look_after(self) -> None:
        """Restart the process if it has ended, as a supervisor does."""
        if self.is_wanted and self.process.poll() is not None:
            self.deaths += 1
            self.start()

    def end(self) -> None:
        """Stop at once, including the workers of killed masters."""
        self.kill()
        for child in self._left:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)
        for pid in self._pids:
            for file in Path("/dev/shm").glob(f"*faketime_*_{pid}"):  # noqa: S108
                file.unlink()  # left by libfaketime in a killed process

    def _remember_children(self) -> None:
        with suppress(OSError):  # the process has ended
            for child in children(self.process.pid):
                with suppress(OSError):  # this worker has ended
                    self._left.append(os.pidfd_open(child))


class System:
    """All processes, running and ready during the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "System":
        self._stack = ExitStack()
        with self._stack:
            self._build()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        self.pair = self._stack.enter_context(Pair(self.folder))
        self.proxy = self._stack.enter_context(Proxy(self.pair.primary.cluster.port))
        self.receiver = self._stack.enter_context(receiver())
        self.clock = Clock(self.folder / "clock")
        self._address = Address("127.0.0.1", quiet_port())
        self.manage("webhooks", "add", "receiver", self.receiver.url(), "--batch", "100")
        self._move_webhook_id()
        self.service = self._part(
            "service", "-m", "gunicorn", "-c", "walletsvc/gunicorn.py", "walletsvc.wsgi"
        )
        self.relay = self._part("relay", "manage.py", "relay_events")
        self.inboxes = [self._part(f"inbox-{n}", "manage.py", "process_inbox") for n in range(INBOXES)]
        for part in self.parts:
            part.start()
            self._stack.callback(part.end)
        self.settle()

    def _move_webhook_id(self) -> None:
        """The relay's lock on this webhook shares the low half of its id with ids that the load chooses."""
        id = str(sharing_low_half(random.Random(0)))  # noqa: S311
        self.pair.primary.ask("UPDATE subscriber SET id = %s::uuid", id)

    def _part(self, name: str, *command: str) -> Part:
        env = self._environment(self.proxy.port) | self.clock.environment
        return Part(name, command, env, self.folder / f"{name}.log")

    def _environment(self, port: int) -> dict[str, str]:
        cluster = self.pair.primary.cluster
        plain = f":{port}/{DATABASE}?sslmode=disable&gssencmode=disable"
        url = cluster.url().replace(f":{cluster.port}/{DATABASE}", plain)
        given = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "BIND": self._address.bind}
        given["TMPDIR"] = str(self.folder)  # files left by killed processes are deleted with the folder
        return SETTINGS | given

    @property
    def address(self) -> tuple[str, int]:
        return self._address.host, self._address.port

    @property
    def parts(self) -> list[Part]:
        return [self.service, self.relay, *self.inboxes]

    def workers(self) -> list[int]:
        return children(self.service.process.pid)

    def look_after(self) -> None:
        for part in self.parts:
            part.look_after()

    def fail_over(self, seconds: float) -> None:
        """Lose the primary. After some seconds, promote the standby and build a new standby for it."""
        self.pair.fail_over(seconds)
        self.proxy.upstream = self.pair.primary.cluster.port
        self.proxy.cut()
        self.pair.renew_standby()

    def settle(self) -> None:
        """Wait until all parts run. Raises LocalError if one does not recover."""
        self.pair.primary.ensure_started()
        self.pair.standby.ensure_started()
        self.pair.wait_for_standby()
        wait_until(self._is_up, "the service is not ready")

    def _is_up(self) -> bool:
        self.look_after()
        with suppress(OSError), urllib.request.urlopen(f"http://{self._address.bind}/readyz", timeout=5):
            return len(self.workers()) == WORKERS
        return False

    def manage(self, *arguments: str) -> str:
        """Run a management command on the database and return its output. Raises LocalError if it fails."""
        done = subprocess.run(
            ending_with_parent([sys.executable, "manage.py", *arguments]),
            env=self._environment(self.pair.primary.cluster.port),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise LocalError(f"manage.py {arguments[0]}: {done.stdout}{error_line(done.stderr)}")
        return done.stdout
