"""The load profiles of `make loadtest`, with the required latency of each."""

from dataclasses import dataclass
from typing import Final

REQUESTS_PER_SECOND: Final = 10  # of one user, which has its own connection


@dataclass(frozen=True)
class Stage:
    seconds: int
    rate: int  # requests a second, of all users together


@dataclass(frozen=True)
class Profile:
    stages: tuple[Stage, ...]
    p99: int  # milliseconds, at most
    wallets: int = 1
    reads: float = 0  # share of the requests that read

    @property
    def seconds(self) -> int:
        return sum(stage.seconds for stage in self.stages)

    @property
    def requests(self) -> int:
        return sum(stage.seconds * stage.rate for stage in self.stages)


PROFILES: Final = {
    "hot": Profile((Stage(60, 1000),), p99=100),
    "hot-2000": Profile((Stage(60, 2000),), p99=250),
    "spread": Profile((Stage(60, 1000),), p99=100, wallets=10_000),
    "mixed": Profile((Stage(60, 1000),), p99=100, wallets=100, reads=0.2),
    "spike": Profile((Stage(20, 300), Stage(10, 2000), Stage(30, 300)), p99=250),
    # A short check that everything works: for tests and for a new installation.
    "smoke": Profile((Stage(5, 20),), p99=5000, wallets=3, reads=0.2),
}
DEFAULT: Final = "hot"
