"""The number of examples: few and fixed in the tests, more in `make fuzz`."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

SEED: Final = os.environ.get("SEED", "1")
MINUTES: Final = int(os.environ.get("MINUTES", "0"))


def examples(count: int) -> settings:
    """Return settings with `count` examples; `make fuzz` adds as many for each minute, by its seed."""
    return settings(
        max_examples=count * (1 + MINUTES),
        derandomize=not MINUTES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
