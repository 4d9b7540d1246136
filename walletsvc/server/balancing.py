"""Connection balancing: workers know each other's counts and leave new connections to those with fewer."""

import mmap
from typing import Any, Final

from gevent.server import StreamServer

SLOTS: Final = 64  # more than there are workers, including those that a reload replaces
ABSENT: Final = -1
MAX_ACCEPTS: Final = 64  # connections that a worker accepts before it serves those it has
MAX_LAST_ACCEPTS: Final = 65_536  # at shutdown: more than any backlog
CONNECTION_TOLERANCE: Final = 1  # connections that a worker may have more than another, and a quarter on top
DEFERRAL_SECONDS: Final = 0.002  # in which another worker may accept a connection
MAX_DEFERRALS: Final = 10  # then this worker accepts it even if others have fewer: they may be stuck

# Made in the master process, when it loads the worker's class; the workers inherit it.
_counts: Final = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("i")
for _slot in range(SLOTS):
    _counts[_slot] = ABSENT


def report(worker: int, connections: int) -> None:
    """Say how many connections the worker has. It is named by its age, which gunicorn counts."""
    _counts[worker % SLOTS] = connections


def leave(worker: int) -> None:
    """Say that the worker accepts no more connections."""
    report(worker, ABSENT)


def fewest_elsewhere(worker: int) -> int | None:
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
        if self.deferrals < MAX_DEFERRALS and not self.is_closing and self._has_enough():
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

    def _has_enough(self) -> bool:
        fewest = fewest_elsewhere(self.worker)
        return fewest is not None and len(self.pool) >= fewest + fewest // 4 + CONNECTION_TOLERANCE

    def close(self) -> None:
        """Accept every queued connection first: the kernel would reset them."""
        if not self.is_closing:
            self.is_closing = True
            self._do_read()
        super().close()
