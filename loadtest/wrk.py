"""Runs wrk, the closed-loop load generator in C: it takes little from the cores that it shares."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from local import LocalError
from local.processes import run

SCRIPT = Path(__file__).with_name("wrk.lua")
RESPONSE_TIMEOUT_SECONDS = 30  # seconds for one answer; wrk's own default would call a slow answer a failure


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of load measured. Times are in milliseconds."""

    requests: int
    seconds: float
    failures: int
    p50: float
    p99: float
    slowest: float
    service_cpu: float = 0  # microseconds a request: less of a matter of chance than the rate
    database_cpu: float = 0  # with the cache's, where there is one
    looks: int = 0  # at a wallet right after something was paid in
    stale: int = 0  # those that did not show it

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
    """What is sent with a request, where that is not the usual deposit."""

    body: Path | None = None
    prefer: str | None = None
    with_keys: bool = False  # each request has its own
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
    """Ask for `paths` (a file, one a line) on so many connections, each with its next request at once."""
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
