"""Many concurrent HTTP clients of several service processes: balances are exact to the cent."""

import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from tests.conftest import Books
from tests.support.client import Answer, Api, OverHttp

T = TypeVar("T")


@pytest.fixture
def in_threads(service: str) -> Callable[..., list[Any]]:
    """Run a function in concurrent threads, each with its own connection."""

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
    """Send random operations. Return the wallet, type, amount and response status of each."""
    dice = random.Random(seed)  # noqa: S311
    done = []
    for number in range(times):
        wallet_id, kind = dice.choice(wallet_ids), dice.choice(["DEPOSIT", "WITHDRAW"])
        amount = f"{dice.randint(1, 10_000) / 100:.2f}"
        key = f"{seed}-{number}" if dice.random() < 0.5 else None
        done.append((wallet_id, kind, amount, api.operate(wallet_id, kind, amount, key).status))
    return done


def operate_in_a_process(
    service: str, wallet_ids: Sequence[str], seed: int, times: int
) -> list[tuple[str, str, str, int]]:
    sender = OverHttp(service)
    with closing(sender.connection):
        return operate_at_random(Api(sender), wallet_ids, seed, times)


def assert_adds_up(api: Api, wallet_ids: Sequence[str], done: list[tuple[str, str, str, int]]) -> None:
    """Assert that the balances, the ledger and the responses agree."""
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
@pytest.mark.slow
def test_64_clients_with_200_operations_each_add_up(
    live_api: Api, in_threads: Callable[..., list[Any]], wallets: int
) -> None:
    wallet_ids = [live_api.open() for _ in range(wallets)]
    done = in_threads(lambda api, seed: operate_at_random(api, wallet_ids, seed, 200), 64)
    assert_adds_up(live_api, wallet_ids, [operation for client in done for operation in client])


@pytest.mark.slow
def test_clients_in_several_processes_add_up(service: str, live_api: Api) -> None:
    wallet_ids = [live_api.open() for _ in range(3)]
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(operate_in_a_process, service, wallet_ids, seed, 100) for seed in range(8)]
        done = [operation for client in running for operation in client.result()]
    assert_adds_up(live_api, wallet_ids, done)


def test_key_sent_by_50_clients_counts_once(live_api: Api, in_threads: Callable[..., list[Answer]]) -> None:
    wallet_id = live_api.open()
    answers = in_threads(lambda api, _: api.deposit(wallet_id, "7", key="same"), 50)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert (live_api.balance(wallet_id), len(live_api.history(wallet_id))) == ("7.00", 1)
    Books((wallet_id,)).verify()


def test_refused_key_sent_by_50_clients_is_recorded_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id = live_api.open()
    answers = in_threads(lambda api, _: api.withdraw(wallet_id, "7", key="same"), 50)
    assert {(answer.status, answer.json["operationId"]) for answer in answers} == {
        (409, live_api.history(wallet_id)[0]["id"])
    }
    assert len(live_api.history(wallet_id)) == 1


@pytest.mark.parametrize("attempt", range(10))
def test_id_sent_to_two_wallets_is_applied_to_one(
    live_api: Api, in_threads: Callable[..., list[Answer]], attempt: int
) -> None:
    wallet_ids, chosen = [live_api.open(), live_api.open()], str(uuid4())
    answers = in_threads(lambda api, number: api.deposit(wallet_ids[number % 2], 1, id=chosen), 8)
    assert {answer.status for answer in answers} == {201, 422}
    assert sorted(live_api.balance(wallet_id) for wallet_id in wallet_ids) == ["0.00", "1.00"]


def test_wallet_opened_by_20_clients_is_opened_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    body = {"id": str(uuid4()), "label": "one"}
    answers = in_threads(lambda api, _: api.post("/wallets", body), 20)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1


def test_one_of_50_withdrawals_gets_the_last_cent(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id = live_api.open(deposit="0.01")
    answers = in_threads(lambda api, _: api.withdraw(wallet_id, "0.01"), 50)
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 49}
    assert live_api.balance(wallet_id) == "0.00"
    Books((wallet_id,)).verify()


@pytest.mark.parametrize("attempt", range(5))
def test_wallet_closed_during_deposits_has_no_money(
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


# --- Transfers --------------------------------------------------------------------------------------
def verified_total(api: Api, wallet_ids: Sequence[str]) -> Decimal:
    """Verify the wallets and return the sum of their balances."""
    Books(tuple(wallet_ids)).verify()
    return sum((Decimal(api.balance(wallet_id)) for wallet_id in wallet_ids), Decimal(0))


@pytest.mark.slow
def test_circular_transfers_do_not_deadlock_and_keep_the_total(
    live_api: Api, in_threads: Callable[..., list[Counter[int]]]
) -> None:
    wallet_ids = [live_api.open(deposit="100") for _ in range(5)]

    def transfer_at_random(api: Api, number: int) -> Counter[int]:
        """Transfer between random pairs: every pair of wallets is locked in both orders."""
        dice, statuses = random.Random(number), Counter[int]()  # noqa: S311
        for _ in range(60):
            source_id, target_id = dice.sample(wallet_ids, 2)
            statuses[api.transfer(source_id, target_id, f"{dice.randint(1, 8000) / 100:.2f}").status] += 1
        return statuses

    statuses = sum(in_threads(transfer_at_random, 32), Counter[int]())
    assert set(statuses) == {201, 409}
    assert sum(statuses.values()) == 32 * 60
    assert verified_total(live_api, wallet_ids) == 500


@pytest.mark.slow
def test_concurrent_opposite_transfers_are_all_carried_out(
    live_api: Api, in_threads: Callable[..., list[set[int]]]
) -> None:
    one, other = live_api.open(deposit="10000"), live_api.open(deposit="10000")

    def transfer_either_way(api: Api, number: int) -> set[int]:
        source_id, target_id = (one, other) if number % 2 else (other, one)
        return {api.transfer(source_id, target_id, "1").status for _ in range(60)}

    assert set[int]().union(*in_threads(transfer_either_way, 32)) == {201}
    assert (live_api.balance(one), live_api.balance(other)) == ("10000.00", "10000.00")
    assert live_api.wallet(one)["sequence"] == live_api.wallet(other)["sequence"] == 1 + 32 * 60
    assert verified_total(live_api, (one, other)) == 20000


def test_transfer_key_sent_by_100_clients_counts_once(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    one, other = live_api.open(deposit="100"), live_api.open()
    answers = in_threads(lambda api, _: api.transfer(one, other, "7", key="same"), 100)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 99
    assert (live_api.balance(one), live_api.balance(other)) == ("93.00", "7.00")
    assert verified_total(live_api, (one, other)) == 100


def test_id_sent_for_opposite_transfers_is_applied_to_one(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    both = [live_api.open(deposit="100"), live_api.open(deposit="100")]
    for _ in range(10):
        chosen = str(uuid4())

        def transfer_either_way(api: Api, number: int, chosen: str = chosen) -> Answer:
            return api.transfer(both[number % 2], both[1 - number % 2], 1, id=chosen)

        answers = in_threads(transfer_either_way, 8)
        assert Counter(answer.status for answer in answers) == {201: 4, 422: 4}
    assert verified_total(live_api, both) == 200


# --- Holds ------------------------------------------------------------------------------------------
def place_short_hold(api: Api, wallet_id: str, seconds: float) -> str:
    """Place a hold that expires soon. Double `seconds` if the time has passed before the hold is placed."""
    while True:
        expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
        answer = api.hold(wallet_id, "10", expiresAt=expires_at.isoformat())
        if answer.status == 201:
            hold_id: str = answer.json["id"]
            return hold_id
        assert answer.json["errors"][0]["field"] == "expiresAt"
        seconds *= 2


@pytest.mark.parametrize("expires", [False, True])
def test_hold_ends_once_under_concurrent_captures_and_voids(
    live_api: Api, in_threads: Callable[..., list[tuple[str, Answer]]], expires: bool
) -> None:
    """Race captures against voids, and if `expires` against the expiry time."""
    wallet_id = live_api.open(deposit="1000")
    left = Decimal(1000)
    ends: Counter[str] = Counter()
    for number in range(12):
        hold_id = (
            place_short_hold(live_api, wallet_id, 0.02 + number / 200)
            if expires
            else live_api.hold(wallet_id, "10").json["id"]
        )

        def end(api: Api, number: int, hold_id: str = hold_id) -> tuple[str, Answer]:
            if number % 2:
                return "VOIDED", api.void(hold_id)
            return "CAPTURED", api.capture(hold_id, f"{number + 1}")

        answers = in_threads(end, 8)
        ended = [(status, answer) for status, answer in answers if answer.status != 409]
        assert {answer.code for _, answer in answers if answer.status == 409} == {"hold_not_active"}
        hold = live_api.held(hold_id)
        assert [status for status, _ in ended] == ([] if hold["status"] == "EXPIRED" else [hold["status"]])
        left -= Decimal(hold["capturedAmount"] or 0)
        ends[hold["status"]] += 1
    wallet = live_api.wallet(wallet_id)
    assert (Decimal(wallet["balance"]), wallet["held"]) == (left, "0.00")
    assert sum(ends.values()) == 12
    assert expires or "EXPIRED" not in ends
    Books((wallet_id,)).verify()


def test_concurrent_holds_and_withdrawals_take_only_the_available_amount(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    wallet_id, other_id = live_api.open(deposit="10"), live_api.open()

    def take(api: Api, number: int) -> Answer:
        match number % 3:
            case 0:
                return api.hold(wallet_id, "1")
            case 1:
                return api.withdraw(wallet_id, "1")
        return api.transfer(wallet_id, other_id, "1")

    answers = in_threads(take, 48)
    assert Counter(answer.status for answer in answers) == {201: 10, 409: 38}
    wallet = live_api.wallet(wallet_id)
    assert wallet["available"] == "0.00"
    assert Decimal(wallet["held"]) == sum(answer.status == 201 for answer in answers[::3])
    Books((wallet_id, other_id)).verify()


# --- Reversals --------------------------------------------------------------------------------------
def test_concurrent_reversals_never_exceed_the_original(
    live_api: Api, in_threads: Callable[..., list[Answer]]
) -> None:
    one, other = live_api.open(deposit="100"), live_api.open(deposit="100")
    transfer = live_api.transfer(one, other, "10").json
    sides = (transfer["source"]["id"], transfer["target"]["id"])

    answers = in_threads(lambda api, number: api.reverse(sides[number % 2], "3"), 32)
    assert Counter(answer.status for answer in answers) == {201: 3, 409: 29}
    assert {answer.code for answer in answers if answer.status == 409} == {"reversal_exceeds_original"}
    answers = in_threads(lambda api, number: api.reverse(sides[number % 2]), 32)
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 31}
    assert (live_api.balance(one), live_api.balance(other)) == ("100.00", "100.00")
    assert verified_total(live_api, (one, other)) == 200


# --- Bulk -------------------------------------------------------------------------------------------
def test_bulk_and_single_requests_on_one_wallet_add_up(
    live_api: Api, in_threads: Callable[..., list[Counter[str]]]
) -> None:
    wallet_id, other_id = live_api.open(deposit="100"), live_api.open(deposit="100")

    def work(api: Api, number: int) -> Counter[str]:
        """Return the number of successful deposits. The transfers do not change the sum of both wallets."""
        deposited = Counter[str]()
        for _ in range(6):
            deposit = {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": "1"}
            transfer = {"sourceWalletId": wallet_id, "targetWalletId": other_id, "amount": "2"}
            back = {"sourceWalletId": other_id, "targetWalletId": wallet_id, "amount": "2"}
            if number % 2:
                deposited["single"] += api.deposit(wallet_id, "1").status == 201
                assert api.transfer(other_id, wallet_id, "0.5").status in (201, 409)
                continue
            is_atomic = number % 4 == 0
            answer = api.bulk(*[deposit, transfer, back, deposit] * 10, atomic=is_atomic)
            if answer.status == 200:
                deposits = answer.json["results"][::4] + answer.json["results"][3::4]
                deposited["bulk"] += sum(result["status"] == 201 for result in deposits)
                statuses = {result["status"] for result in answer.json["results"]}
                assert statuses == {201} if is_atomic else statuses <= {201, 409}
            else:
                assert (is_atomic, answer.code) == (True, "insufficient_funds")
        return deposited

    deposited = sum(in_threads(work, 16), Counter[str]())
    assert deposited["single"] == 8 * 6
    assert deposited["bulk"] >= 4 * 6 * 20  # in a bulk that is not atomic, all deposits succeed
    assert verified_total(live_api, (wallet_id, other_id)) == 200 + deposited["single"] + deposited["bulk"]


@pytest.mark.parametrize("atomic", [False, True])
def test_bulk_sent_by_16_clients_counts_once(
    live_api: Api, in_threads: Callable[..., list[Answer]], atomic: bool
) -> None:
    one, other = live_api.open(deposit="10"), live_api.open()
    transfer = {"sourceWalletId": one, "targetWalletId": other, "amount": "1"}
    key = f"same-{uuid4()}"
    answers = in_threads(lambda api, _: api.bulk(*[transfer] * 10, key=key, atomic=atomic), 16)
    assert {answer.status for answer in answers} == {200}
    ids = {tuple(result["transfer"]["id"] for result in answer.json["results"]) for answer in answers}
    assert len(ids) == 1
    first = [result for answer in answers for result in answer.json["results"] if not result["replayed"]]
    assert len(first) == 10
    assert (live_api.balance(one), live_api.balance(other)) == ("0.00", "10.00")
    assert verified_total(live_api, (one, other)) == 10
