"""What a running worker spends its time with, as a flame graph, from samples of its stacks.

A worker takes them itself when SIGPROF asks it to: so it needs no right to look into other processes, which
containers rarely give. Question and answer lie in a folder of shared memory that only the worker's own user
may enter; it is there and writable where nothing else is. Nothing here may import Django.
"""

import os
import stat
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final
from xml.sax.saxutils import escape  # nosec B406  # it parses nothing

from gevent import monkey

FOLDERS: Final = Path("/dev/shm")  # noqa: S108 - the folder below it is made for us alone
PAUSE: Final = 0.01  # seconds between two samples
DEEPEST: Final = 150  # frames
IDLE: Final = "idle"

# The sampler is a real thread beside the one that serves requests, and must not become part of its loop.
_start_thread, _thread_id = monkey.get_original("_thread", ["start_new_thread", "get_ident"])
_sleep, _now = monkey.get_original("time", ["sleep", "monotonic"])

Stack = tuple[str, ...]  # from the outermost


def folder_of(pid: int) -> Path:
    return FOLDERS / f"walletsvc-profile-{pid}"


# --- In the worker ----------------------------------------------------------------------------------
def on_signal(*_: Any) -> None:
    """Whoever may send us a signal and make a folder as this user may know what we do."""
    folder = folder_of(os.getpid())
    try:
        found = folder.lstat()
        seconds = float((folder / "seconds").read_text())
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        _start_thread(_answer, (folder, seconds, _thread_id()))


def _answer(folder: Path, seconds: float, thread: int) -> None:
    drawn = flame_graph(sample(thread, seconds), f"{seconds:g} s of process {os.getpid()}")
    try:
        (folder / "unfinished").write_text(drawn)
        (folder / "unfinished").rename(folder / "flame.svg")
    except OSError:
        return  # who asked has gone


def sample(thread: int, seconds: float) -> Counter[Stack]:
    """How often each stack of the thread was seen."""
    seen: Counter[Stack] = Counter()
    end = _now() + seconds
    while _now() < end:
        _sleep(PAUSE)
        seen[_stack(sys._current_frames().get(thread))] += 1
    return seen


def _stack(frame: FrameType | None) -> Stack:
    if frame is None or (frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == "gevent.hub"):
        return (IDLE,)  # the loop waits for something to happen
    names: list[str] = []
    while frame is not None and len(names) < DEEPEST:
        names.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


# --- As a picture -----------------------------------------------------------------------------------
WIDTH: Final = 1200
ROW: Final = 17
LETTER: Final = 6.6
NARROWEST: Final = 0.5
OURS, OTHERS, NOBODYS = "#f2a65a", "#bcd4e6", "#e8e8e8"


def flame_graph(seen: Counter[Stack], title: str) -> str:
    """An SVG without scripts: callers above what they call, as wide as their share of the samples."""
    total = seen.total()
    boxes = _boxes(seen, 0, 0.0, WIDTH / max(total, 1))
    rows = 2 + max((row for row, *_ in boxes), default=0)
    drawn = "\n".join(_box(row, left, width, name, count, total) for row, left, width, name, count in boxes)
    head = f"{title}, {total} samples; ours in orange. The pointer on a box tells its share."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * (rows + 1)}" width="{WIDTH}" '
        f'font-family="monospace" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n<text x="4" y="13">{escape(head)}</text>\n'
        f"{drawn}\n</svg>\n"
    )


_Box = tuple[int, float, float, str, int]  # row, left, width, name, samples


def _boxes(seen: Counter[Stack], row: int, left: float, scale: float) -> list[_Box]:
    """The callers in this row, each with all that it calls."""
    called: dict[str, Counter[Stack]] = {}
    for stack, count in seen.items():
        if len(stack) > row:
            called.setdefault(stack[row], Counter())[stack] = count
    boxes: list[_Box] = []
    for name in sorted(called):
        count = called[name].total()
        width = count * scale
        if width >= NARROWEST:
            boxes += [(row, left, width, name, count), *_boxes(called[name], row + 1, left, scale)]
        left += width
    return boxes


def _box(row: int, left: float, width: float, name: str, count: int, total: int) -> str:  # noqa: PLR0913, PLR0917
    colour = NOBODYS if name == IDLE else OURS if name.startswith(("wallets.", "walletsvc.")) else OTHERS
    top, fits = (row + 1) * ROW, int((width - 4) / LETTER)
    share = f"{name}: {count / total:.1%} ({count})"
    label = name if len(name) <= fits else f"{name[: fits - 1]}…" if fits > 2 else ""  # noqa: PLR2004
    return (
        f'<g><title>{escape(share)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{ROW - 1}" fill="{colour}" stroke="#ffffff" stroke-width="0.5"/>'
        f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(label)}</text></g>'
    )
