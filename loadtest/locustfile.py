"""Locust's users: `make loadtest`, or `locust -f loadtest/locustfile.py` for its web page.

Every user sends at a constant rate. If a late response delays the next request, the delay counts as response
time. So if the service stops for two seconds, all requests of these seconds are slow, not only one of each
connection.
"""

import os
import random
import time
from argparse import Namespace
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4, uuid5

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, LoadTestShape, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook
from locust.exception import StopTest
from locust.runners import STATE_STOPPED, Runner, WorkerRunner

from loadtest.answered import AnsweredOperations
from loadtest.profiles import DEFAULT, PROFILES, REQUESTS_PER_SECOND, Profile

API = "/api/v1/wallets"
CONCURRENT_OPENS = 32  # wallets that are opened at a time, before the load
PROGRESS_INTERVAL_SECONDS = 5.0

answered = AnsweredOperations()


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--load", choices=list(PROFILES), default=DEFAULT, help="name of the load profile")
    parser.add_argument(
        "--run",
        default=str(uuid4()),
        include_in_web_ui=False,
        help="UUID from which the ids of the wallets are made",
    )
    parser.add_argument(
        "--answered", default="", include_in_web_ui=False, help="folder for the answered operations"
    )


def chosen(environment: Environment) -> Namespace:
    return cast(Namespace, environment.parsed_options)


def profile(environment: Environment) -> Profile:
    return PROFILES[chosen(environment).load]


@cache
def wallets(run: str, count: int) -> list[str]:
    """Return the wallet ids, equal in all processes of a run: only one process opens the wallets."""
    return [str(uuid5(UUID(run), str(number))) for number in range(count)]


class Client(FastHttpUser):
    """Deposits, withdraws deposited money, and reads, at random."""

    network_timeout = connection_timeout = 30.0

    def on_start(self) -> None:
        self.reads = profile(self.environment).reads
        self.wallets = wallets(chosen(self.environment).run, profile(self.environment).wallets)
        self.client.client.cookiejar = (
            None  # the service sets none, and handling them takes a tenth of the CPU time
        )
        self.delay_seconds = 0.0  # how late the current request was sent, because of the response before it
        self.due = time.perf_counter() + random.random() / REQUESTS_PER_SECOND
        gevent.sleep(self.due - time.perf_counter())

    def wait_time(self) -> float:
        self.due += 1 / REQUESTS_PER_SECOND
        now = time.perf_counter()
        self.delay_seconds = max(0, now - self.due)
        return max(0, self.due - now)

    @task
    def send_request(self) -> None:
        wallet = random.choice(self.wallets)
        if random.random() < self.reads:
            self.read(wallet)
        else:
            self.operate(wallet)

    def read(self, wallet: str) -> None:
        with self.client.get(f"{API}/{wallet}", name="read", catch_response=True) as response:
            response.request_meta["response_time"] += self.delay_seconds * 1000

    def operate(self, wallet: str) -> None:
        cents = answered.next_amount(wallet)
        kind, amount = "DEPOSIT" if cents > 0 else "WITHDRAW", f"{abs(cents) // 100}.{abs(cents) % 100:02}"
        with self.client.post(
            f"{API}/{wallet}/operation",
            data=f'{{"operationType":"{kind}","amount":"{amount}"}}',
            headers={"Content-Type": "application/json", "Idempotency-Key": str(uuid4())},
            name="operate",
            catch_response=True,
        ) as response:
            response.request_meta["response_time"] += self.delay_seconds * 1000
            if response.request_meta["exception"] is None:
                answered.add(wallet, cents)


class Stages(LoadTestShape):
    """Sets the number of users that the profile's rate needs at any time."""

    def tick(self) -> tuple[int, float] | None:
        environment = cast(Runner, self.runner).environment
        elapsed = self.get_run_time()
        for stage in profile(environment).stages:
            if elapsed < stage.seconds:
                return stage.rate // REQUESTS_PER_SECOND, 100
            elapsed -= stage.seconds
        return None


@events.test_start.add_listener
def open_wallets(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    session = FastHttpSession(environment.host, EventHook(), user=None, concurrency=CONCURRENT_OPENS)

    def open_wallet(wallet: str) -> str | None:
        response = session.post(API, json={"id": wallet, "label": "loadtest"})
        is_open = response.status_code == HTTPStatus.CREATED
        return None if is_open else str(response.text or getattr(response, "error", ""))

    ids = wallets(chosen(environment).run, profile(environment).wallets)
    for reason in filter(None, Pool(CONCURRENT_OPENS).imap_unordered(open_wallet, ids)):
        raise StopTest(f"a wallet cannot be opened: {reason}")
    if environment.shape_class:
        environment.shape_class.reset_time()


@events.test_start.add_listener
def show_progress(environment: Environment, **_: Any) -> None:
    if chosen(environment).headless and not isinstance(environment.runner, WorkerRunner):
        gevent.spawn(print_progress, environment)


def print_progress(environment: Environment) -> None:
    started, total = time.monotonic(), environment.stats.total
    while environment.runner and environment.runner.state != STATE_STOPPED:
        gevent.sleep(PROGRESS_INTERVAL_SECONDS)
        p50, p99 = (total.get_current_response_time_percentile(share) for share in (0.5, 0.99))
        print(
            f"{time.monotonic() - started:5.0f} s  {total.num_requests:>8,} requests  "
            f"{total.current_rps:6,.0f} a second  p50 {p50} ms  p99 {p99} ms  {total.num_failures} failures",
            flush=True,
        )


@events.quitting.add_listener
def save_answered(environment: Environment, **_: Any) -> None:
    if folder := chosen(environment).answered:
        answered.save(Path(folder) / f"answered-{os.getpid()}.json")
