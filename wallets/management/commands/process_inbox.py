"""manage.py process_inbox: carry out the operations that were accepted asynchronously."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from django.core.management.base import CommandParser
from django.db import DEFAULT_DB_ALIAS, Error, connection

from wallets import database_retry
from wallets.ledger import inbox
from wallets.management.arguments import Command as Base

logger = logging.getLogger(__name__)

# A poll costs one index lookup. NOTIFY would delay each acceptance: it takes a lock that all commits of the
# database share.
IDLE_PAUSE_SECONDS: Final = 0.2  # between two polls if no entry can be carried out
PAUSE_FACTOR: Final = 5  # a pause is at least this many times as long as the poll before it
LOG_INTERVAL_SECONDS: Final = 60.0  # between two log lines about progress


class Command(Base):
    help = (
        "Carry out the operations that were accepted asynchronously, until a signal. Any number of these"
        " processes may run at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=500, help="operations in one transaction (default: %(default)s)"
        )
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--until-empty", action="store_true", help="end when the inbox is empty")
        ends.add_argument(
            "--status", action="store_true", help="print the number of waiting operations and end"
        )

    def handle(self, **options: Any) -> None:
        if options["batch"] < 1:
            self.refuse("--batch must be at least 1")
        try:
            if options["status"]:
                self.stdout.write(status(database_retry.retry_until_deadline(inbox.waiting)))
            else:
                done = InboxWorker(options["batch"], options["until_empty"]).run()
                if options["until_empty"]:
                    self.stdout.write(f"{done} operations carried out")
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)
            connection.close_pool()  # type: ignore[attr-defined]  # else Python 3.13 ends 20 s later


def status(waiting: inbox.Waiting) -> str:
    if waiting.oldest is None:
        text = "the inbox is empty"
    else:
        text = f"{waiting.entries} operations wait, the oldest for {waiting.oldest.total_seconds():.1f} s"
    return f"{text}; {waiting.set_aside} are set aside" if waiting.set_aside else text


class InboxWorker:
    """Drains the inbox in batches, and reconnects when the database connection is lost."""

    def __init__(self, batch: int, until_empty: bool) -> None:
        self._batch = batch
        self._until_empty = until_empty
        self._drain = inbox.Drain(careful=True)
        self._is_ending = False
        self._is_disconnected = False
        self._done = self._logged = 0
        self._next_log_at = time.monotonic() + LOG_INTERVAL_SECONDS

    def run(self) -> int:
        """Drain until a signal, or until the inbox is empty; return the number of operations carried out."""
        with self._ended_by_signals():
            while not self._is_ending:
                try:
                    self._step()
                except Error as error:
                    if not database_retry.is_connection_lost(error):
                        raise
                    self._wait_for_database(error)
        return self._done

    def _step(self) -> None:
        began = time.monotonic()
        with database_retry.disconnected_when_slow(DEFAULT_DB_ALIAS):
            done = self._drain.run(self._batch)
        self._log_progress(done)
        if done:
            return
        if self._until_empty and not inbox.waiting().entries:
            self._is_ending = True
        else:
            time.sleep(max(IDLE_PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - began)))

    def _log_progress(self, done: int) -> None:
        self._done += done
        if self._is_disconnected:
            logger.info("database available again")
            self._is_disconnected = False
        if self._done > self._logged and time.monotonic() >= self._next_log_at:
            logger.info("%d inbox operations executed, %d in total", self._done - self._logged, self._done)
            self._logged, self._next_log_at = self._done, time.monotonic() + LOG_INTERVAL_SECONDS

    def _wait_for_database(self, error: Error) -> None:
        """Reconnect. The transaction was committed or not: the inbox shows the remaining entries."""
        if not self._is_disconnected:
            logger.warning("database unavailable; the inbox waits for reconnect: %s", str(error).strip())
            self._is_disconnected = True
        database_retry.reconnect(DEFAULT_DB_ALIAS)
        time.sleep(IDLE_PAUSE_SECONDS)

    @contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the worker after the current batch."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_ending = True
