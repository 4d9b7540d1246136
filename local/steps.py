"""Progress output: one line for each step, with its duration."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the name when the block begins, and its duration when it ends without an error."""
    started = time.monotonic()
    print(f"  {name:<70}", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f"{time.monotonic() - started:6.1f} s", flush=True)
