"""Cuts off calls that take too long: peers may be frozen, and each byte restarts the timeout of a socket."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

CHECK_SECONDS: Final = 0.25  # between two checks of the calls in progress


@dataclass(frozen=True, eq=False, slots=True)
class _Call:
    deadline: float
    cut: Callable[[], None]


_calls: Final[set[_Call]] = set()
_is_started: Final = threading.Lock()  # stays locked after the first call


@contextmanager
def cut_off_after(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Call `cut` in another thread after so many seconds, and repeatedly until the block ends."""
    if _is_started.acquire(blocking=False):
        threading.Thread(target=_watch, name="watchdog", daemon=True).start()
    call = _Call(time.monotonic() + seconds, cut)
    _calls.add(call)
    try:
        yield
    finally:
        _calls.discard(call)


def _watch() -> None:
    while True:
        time.sleep(CHECK_SECONDS)
        now = time.monotonic()
        for call in [call for call in _calls.copy() if call.deadline < now]:
            call.cut()
