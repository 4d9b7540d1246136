"""How much is tried: little and always the same in the tests, more in `make fuzz`."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

SEED: Final = os.environ.get("SEED", "1")
MINUTES: Final = int(os.environ.get("MINUTES", "0"))


def examples(count: int) -> settings:
    """So many; in `make fuzz`, that many again for each minute, and others for each seed."""
    return settings(
        max_examples=count * (1 + MINUTES),
        derandomize=not MINUTES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
