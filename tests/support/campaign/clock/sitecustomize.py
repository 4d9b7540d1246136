"""Replace time.sleep under libfaketime, which breaks clock_nanosleep, by a sleep with select."""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep  # type: ignore[assignment]
