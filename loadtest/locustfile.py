"""Locust's users: `make loadtest`, or `locust -f loadtest/locustfile.py` for its web page.

Every user sends at a constant rate of its own. Where an answer came so late that the next request had to wait
for it, that wait counts as time to answer: a service that stops for two seconds is seen to have delayed all
requests of these seconds, not just one a connection.
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

from loadtest.profiles import DEFAULT, PROFILES, REQUESTS_PER_SECOND, Profile
from loadtest.tally import Tally

API = "/api/v1/wallets"
OPENERS = 32  # wallets being opened at once, before the load
PROGRESS_INTERVAL_SECONDS = 5.0  # seconds

tally = Tally()


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--load", choices=list(PROFILES), default=DEFAULT, help="the load, by its name")
    parser.add_argument("--run", default=str(uuid4()), include_in_web_ui=False, help="names the wallets")
    parser.add_argument("--tally", default="", include_in_web_ui=False, help="folder for what was answered")


def chosen(environment: Environment) -> Namespace:
    return cast(Namespace, environment.parsed_options)


def profile(environment: Environment) -> Profile:
    return PROFILES[chosen(environment).load]


@cache
def wallets(run: str, count: int) -> list[str]:
    """Their ids, the same in all processes of a run: only one of them opens the wallets."""
    return [str(uuid5(UUID(run), str(number))) for number in range(count)]


class Client(FastHttpUser):
    """Deposits, withdraws what was deposited, and reads, all at random."""

    network_timeout = connection_timeout = 30.0

    def on_start(self) -> None:
        self.reads = profile(self.environment).reads
        self.wallets = wallets(chosen(self.environment).run, profile(self.environment).wallets)
        self.client.client.cookiejar = None  # there are none, and looking for them takes a tenth of the time
        self.held_back = 0.0  # seconds that the next request waited for the answer before
        self.due = time.perf_counter() + random.random() / REQUESTS_PER_SECOND
        gevent.sleep(self.due - time.perf_counter())

    def wait_time(self) -> float:
        self.due += 1 / REQUESTS_PER_SECOND
        now = time.perf_counter()
        self.held_back = max(0, now - self.due)
        return max(0, self.due - now)

    @task
    def ask(self) -> None:
        wallet = random.choice(self.wallets)
        if random.random() < self.reads:
            self.read(wallet)
        else:
            self.operate(wallet)

    def read(self, wallet: str) -> None:
        with self.client.get(f"{API}/{wallet}", name="read", catch_response=True) as response:
            response.request_meta["response_time"] += self.held_back * 1000

    def operate(self, wallet: str) -> None:
        cents = tally.next_amount(wallet)
        kind, amount = "DEPOSIT" if cents > 0 else "WITHDRAW", f"{abs(cents) // 100}.{abs(cents) % 100:02}"
        with self.client.post(
            f"{API}/{wallet}/operation",
            data=f'{{"operationType":"{kind}","amount":"{amount}"}}',
            headers={"Content-Type": "application/json", "Idempotency-Key": str(uuid4())},
            name="operate",
            catch_response=True,
        ) as response:
            response.request_meta["response_time"] += self.held_back * 1000
            if response.request_meta["exception"] is None:
                tally.add(wallet, cents)


class Stages(LoadTestShape):
    """As many users at every moment as the profile's rate needs."""

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
    session = FastHttpSession(environment.host, EventHook(), user=None, concurrency=OPENERS)

    def refusal(wallet: str) -> str | None:
        answer = session.post(API, json={"id": wallet, "label": "loadtest"})
        is_open = answer.status_code == HTTPStatus.CREATED
        return None if is_open else str(answer.text or getattr(answer, "error", ""))

    ids = wallets(chosen(environment).run, profile(environment).wallets)
    for reason in filter(None, Pool(OPENERS).imap_unordered(refusal, ids)):
        raise StopTest(f"no wallet can be opened: {reason}")
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
def save_tally(environment: Environment, **_: Any) -> None:
    if folder := chosen(environment).tally:
        tally.save(Path(folder) / f"tally-{os.getpid()}.json")
