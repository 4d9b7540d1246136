"""manage.py profile_worker: what a running worker spends its time with, as a flame graph."""

import os
import shutil
import signal
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from wallets.management.arguments import Command as Base
from wallets.observability.profiles import folder_of

PROCESSES: Final = Path("/proc")
SIGPROF: Final = 1 << (signal.SIGPROF - 1)
GRACE: Final = 15.0  # seconds for a busy worker to draw
PAUSE: Final = 0.1


class Command(Base):
    help = "Watch a running worker for some seconds, without stopping it, and write a flame graph (SVG)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--pid", type=int, help="the worker (default: the one that has worked most)")
        parser.add_argument("--seconds", type=_seconds, default=10, help="1 to 600 (default: %(default)s)")
        parser.add_argument("--output", type=Path, help="the file to write (default: standard output)")

    def handle(self, **options: Any) -> None:
        found = workers()
        pid = options["pid"] or max(found, key=time_of, default=None)
        if pid not in found:
            self.refuse("that is no worker of this user's" if pid else "no worker of this user runs here")
        print(f"Watching worker {pid} for {options['seconds']} s", file=sys.stderr)
        graph = self._ask(pid, options["seconds"])
        if options["output"]:
            options["output"].write_text(graph)
        else:
            self.stdout.write(graph, ending="")

    def _ask(self, pid: int, seconds: int) -> str:
        with self._folder(pid) as folder:
            (folder / "seconds").write_text(str(seconds))
            os.kill(pid, signal.SIGPROF)
            deadline = time.monotonic() + seconds + GRACE
            while not (folder / "flame.svg").exists():
                if time.monotonic() > deadline or pid not in workers():
                    raise CommandError(f"worker {pid} has not answered: it is stuck, or has ended")
                time.sleep(PAUSE)
            return (folder / "flame.svg").read_text()

    @contextmanager
    def _folder(self, pid: int) -> Iterator[Path]:
        folder = folder_of(pid)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            self.refuse(f"worker {pid} is being watched already; if nobody does that, remove {folder}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 600:  # noqa: PLR2004
        raise ArgumentTypeError("must be 1 to 600")
    return int(text)


def workers() -> list[int]:
    """Processes of ours that listen to the signal. It would end any other, gunicorn's master too."""
    return [int(process.name) for process in PROCESSES.glob("[0-9]*") if _is_worker(process)]


def _is_worker(process: Path) -> bool:
    try:
        is_ours = process.stat().st_uid == os.geteuid()
        if not is_ours or b"walletsvc.wsgi" not in (process / "cmdline").read_bytes():
            return False
        status = (process / "status").read_text()
    except OSError:
        return False  # it has ended
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & SIGPROF)


def time_of(pid: int) -> int:
    """What it has had of the processors so far."""
    try:
        fields = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
