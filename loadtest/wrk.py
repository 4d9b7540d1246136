"""Runs wrk, a closed-loop load generator in C, which takes little CPU time from the service."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from local import LocalError
from local.processes import run

SCRIPT = Path(__file__).with_name("wrk.lua")
RESPONSE_TIMEOUT_SECONDS = 30  # wrk's own default of 2 s would count slow responses as failures


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of load measured. Times are in milliseconds."""

    requests: int
    seconds: float
    failures: int
    p50: float
    p99: float
    slowest: float
    service_cpu: float = 0  # microseconds for each request; it varies less than the rate
    database_cpu: float = 0  # the same for the database, and the cache if there is one
    checked_reads: int = 0  # reads of a wallet after a deposit was answered
    stale: int = 0  # checked reads that did not show the deposit

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def program() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise LocalError("the program wrk is missing: apt-get install wrk")
    return found


@dataclass(frozen=True, slots=True)
class Post:
    """How the requests differ from a plain deposit."""

    body: Path | None = None
    prefer: str | None = None
    with_keys: bool = False  # each request has its own idempotency key
    api_key: str | None = None

    def arguments(self) -> list[str]:
        given = {
            "keys": f"{uuid4()}-" if self.with_keys else None,
            "body": self.body,
            "prefer": self.prefer,
            "apikey": self.api_key,
        }
        return [f"{name}={value}" for name, value in given.items() if value is not None]


def load(  # noqa: PLR0913, PLR0917
    url: str, method: str, paths: Path, connections: int, seconds: float, post: Post = Post()
) -> Result:
    """Send requests to random lines of the file `paths`; each connection sends the next one at once."""
    duration = f"{max(1, round(seconds))}s"
    output = run(
        [
            *(program(), "--threads", "1", "--connections", str(connections), "--duration", duration),
            *("--timeout", f"{RESPONSE_TIMEOUT_SECONDS}s", "--script", str(SCRIPT)),
            *(url, "--", method, str(paths)),
            *post.arguments(),
        ]
    )
    return Result(**json.loads(output.splitlines()[-1]))
