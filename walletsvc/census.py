"""How many connections each worker has, in memory that all of them share.

The kernel wakes every worker for a new connection, and the quickest takes it. Left alone, one worker takes
nearly all, and its clients wait for one core while the other idles.
"""

import mmap
from typing import Final

SLOTS: Final = 64  # more than there are workers, those that a reload replaces included
ABSENT: Final = -1

# Made in the master process, when it loads the worker's class; the workers inherit it.
_counts: Final = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("i")
for _slot in range(SLOTS):
    _counts[_slot] = ABSENT


def report(worker: int, connections: int) -> None:
    """The worker (by its age, which gunicorn counts) has so many now."""
    _counts[worker % SLOTS] = connections


def leave(worker: int) -> None:
    """The worker takes no connections any more."""
    _counts[worker % SLOTS] = ABSENT


def fewest_elsewhere(worker: int) -> int | None:
    """What the worker with the fewest connections has, apart from this one; None where there is no other."""
    mine = worker % SLOTS
    others = [count for slot, count in enumerate(_counts) if count != ABSENT and slot != mine]
    return min(others, default=None)
