"""Connection balancing: workers share their connection counts, and one with more defers to one with fewer."""

import mmap
from typing import Any, Final

from gevent.server import StreamServer

SLOTS: Final = 64  # more than the number of workers, including those that a reload replaces
ABSENT: Final = -1
MAX_ACCEPTS: Final = 64  # connections that a worker accepts in one round of its loop
MAX_LAST_ACCEPTS: Final = 65_536  # at shutdown: more than any backlog
CONNECTION_TOLERANCE: Final = 1  # a worker may have a quarter more connections than another, and this
DEFERRAL_SECONDS: Final = 0.002  # in which another worker may accept the connection
MAX_DEFERRALS: Final = 10  # then this worker accepts: the others may be stuck

# Shared memory: the master process makes it when it loads the worker's class, and the workers inherit it.
_counts: Final = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("i")
for _slot in range(SLOTS):
    _counts[_slot] = ABSENT


def report(worker: int, connections: int) -> None:
    """Publish how many connections the worker has. `worker` is its age, the number that gunicorn gave it."""
    _counts[worker % SLOTS] = connections


def leave(worker: int) -> None:
    """Exclude the worker from the balancing: it accepts no more connections."""
    report(worker, ABSENT)


def lowest_other_count(worker: int) -> int | None:
    """Return the lowest count of the other workers; None if there are none."""
    others = (count for slot, count in enumerate(_counts) if count != ABSENT and slot != worker % SLOTS)
    return min(others, default=None)


class Listener(StreamServer):  # type: ignore[misc]
    worker = 0  # the age of the worker that listens
    is_closing = False
    deferrals = 0

    @property
    def max_accept(self) -> int:
        return MAX_LAST_ACCEPTS if self.is_closing else MAX_ACCEPTS

    @max_accept.setter
    def max_accept(self, _: int) -> None:
        """Ignore gunicorn's 1 for several workers."""

    def do_read(self) -> Any:
        if self.deferrals < MAX_DEFERRALS and not self.is_closing and self._should_defer():
            self.deferrals += 1
            self.stop_accepting()
            self._timer = self.loop.timer(DEFERRAL_SECONDS)
            self._timer.start(self._start_accepting_if_started)
            return None
        self.deferrals = 0
        connection = super().do_read()
        if connection:
            report(self.worker, len(self.pool) + 1)
        return connection

    def _should_defer(self) -> bool:
        fewest = lowest_other_count(self.worker)
        return fewest is not None and len(self.pool) >= fewest + fewest // 4 + CONNECTION_TOLERANCE

    def close(self) -> None:
        """Accept every queued connection before closing: the kernel would reset them."""
        if not self.is_closing:
            self.is_closing = True
            self._do_read()
        super().close()
