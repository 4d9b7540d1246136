"""Many clients at once, over real HTTP, against several processes: it adds up to the cent."""

import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from tests.client import Answer, Api, OverHttp
from tests.conftest import Books

T = TypeVar("T")


@pytest.fixture
def in_threads(service: str) -> Callable[..., list[Any]]:
    """Run one function many times at once, each with a connection of its own."""

    def run(work: Callable[[Api, int], T], times: int) -> list[T]:
        def one(number: int) -> T:
            sender = OverHttp(service)
            with closing(sender.connection):
                return work(Api(sender), number)

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(one, range(times)))

    return run


def operate_at_random(
    api: Api, wallet_ids: Sequence[str], seed: int, times: int
) -> list[tuple[str, str, str, int]]:
    """Mixed operations; what was asked for, and the status that answered it."""
    dice = random.Random(seed)  # noqa: S311
    done = []
    for number in range(times):
        wallet_id, kind = dice.choice(wallet_ids), dice.choice(["DEPOSIT", "WITHDRAW"])
        amount = f"{dice.randint(1, 10_000) / 100:.2f}"
        key = f"{seed}-{number}" if dice.random() < 0.5 else None
        done.append((wallet_id, kind, amount, api.operate(wallet_id, kind, amount, key).status))
    return done


def in_a_process(
    service: str, wallet_ids: Sequence[str], seed: int, times: int
) -> list[tuple[str, str, str, int]]:
    sender = OverHttp(service)
    with closing(sender.connection):
        return operate_at_random(Api(sender), wallet_ids, seed, times)


def assert_adds_up(api: Api, wallet_ids: Sequence[str], done: list[tuple[str, str, str, int]]) -> None:
    """Balance, ledger and what the clients were told are the same."""
    assert {status for *_, status in done} <= {201, 409}
    expected = dict.fromkeys(wallet_ids, Decimal(0))
    entries: Counter[str] = Counter()
    for wallet_id, kind, amount, status in done:
        if status == 201:
            expected[wallet_id] += Decimal(amount) if kind == "DEPOSIT" else -Decimal(amount)
            entries[wallet_id] += 1
    for wallet_id in wallet_ids:
        wallet = api.wallet(wallet_id)
        assert Decimal(wallet["balance"]) == expected[wallet_id] >= 0
        assert wallet["sequence"] == entries[wallet_id]
    Books(tuple(wallet_ids)).verify()


@pytest.mark.parametrize("wallets", [1, 10])
def test_64_clients_with_200_mixed_operations_each_add_up(
    live_api: Api, in_threads: Callable[..., list[Any]], wallets: int
) -> None:
    wallet_ids = [live_api.open() for _ in range(wallets)]
    done = in_threads(lambda api, seed: operate_at_random(api, wallet_ids, seed, 200), 64)
    assert_adds_up(live_api, wallet_ids, [operation for client in done for operation in client])


def test_clients_in_processes_of_their_own_add_up(service: str, live_api: Api) -> None:
    wallet_ids = [live_api.open() for _ in range(3)]
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(in_a_process, service, wallet_ids, seed, 100) for seed in range(8)]
        done = [operation for client in running for operation in client.result()]
    assert_adds_up(live_api, wallet_ids, done)


def test_one_key_sent_by_50_at_once_counts_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id = live_api.open()
    answers = in_threads(lambda api, _: api.deposit(wallet_id, "7", key="same"), 50)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert (live_api.balance(wallet_id), len(live_api.history(wallet_id))) == ("7.00", 1)
    Books((wallet_id,)).verify()


def test_one_refused_key_sent_by_50_at_once_is_refused_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id = live_api.open()
    answers = in_threads(lambda api, _: api.withdraw(wallet_id, "7", key="same"), 50)
    assert {(answer.status, answer.json["operationId"]) for answer in answers} == {
        (409, live_api.history(wallet_id)[0]["id"])
    }
    assert len(live_api.history(wallet_id)) == 1


@pytest.mark.parametrize("attempt", range(10))
def test_one_id_on_two_wallets_at_once_is_applied_to_one(
    live_api: Api, in_threads: Callable[..., list[Answer]], attempt: int
) -> None:
    wallet_ids, chosen = [live_api.open(), live_api.open()], str(uuid4())
    answers = in_threads(lambda api, number: api.deposit(wallet_ids[number % 2], 1, id=chosen), 8)
    assert {answer.status for answer in answers} == {201, 422}
    assert sorted(live_api.balance(wallet_id) for wallet_id in wallet_ids) == ["0.00", "1.00"]


def test_one_wallet_opened_by_20_at_once_is_opened_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    asked = {"id": str(uuid4()), "label": "one"}
    answers = in_threads(lambda api, _: api.post("/wallets", asked), 20)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1


def test_withdrawals_racing_for_the_last_cent_have_one_winner(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id = live_api.open(deposit="0.01")
    answers = in_threads(lambda api, _: api.withdraw(wallet_id, "0.01"), 50)
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 49}
    assert live_api.balance(wallet_id) == "0.00"
    Books((wallet_id,)).verify()


@pytest.mark.parametrize("attempt", range(5))
def test_closing_races_with_deposits_and_no_money_is_left_in_a_closed_wallet(
    live_api: Api, in_threads: Callable[..., list[Answer]], attempt: int
) -> None:
    wallet_id = live_api.open()

    def deposit_or_close(api: Api, number: int) -> Answer:
        if number % 2:
            return api.deposit(wallet_id, 1)
        return api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"})

    answers = in_threads(deposit_or_close, 8)
    wallet = live_api.wallet(wallet_id)
    if wallet["status"] == "CLOSED":
        assert {answer.code for answer in answers[1::2]} == {"wallet_closed"}
        assert wallet["balance"] == "0.00"
    else:
        assert {answer.code for answer in answers[::2]} == {"wallet_not_empty"}
    Books((wallet_id,)).verify()
