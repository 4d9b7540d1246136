"""The operators' start page: the state of the ledger and its recent operations, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.timesince import timesince

from wallets import money, report
from wallets.admin import columns
from wallets.admin.lists import link_by_id
from wallets.events.delivery_state import DeliveryState
from wallets.models import LedgerCheck, Wallet
from wallets.report import BusyWallet, Movements, Refusals, Report

PERIODS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
DEFAULT_PERIOD: Final = "day"
REQUIRED_PERMISSIONS: Final = ("wallets.view_operation", "wallets.view_wallet")
NEUTRAL_COLOUR: Final = "text-primary-600 dark:text-primary-500"
GOOD_COLOUR: Final = "text-green-700 dark:text-green-400"
WARNING_COLOUR: Final = "text-orange-700 dark:text-orange-400"
BAD_COLOUR: Final = "text-red-700 dark:text-red-400"
LATE_LAG_SECONDS: Final = 60  # a subscriber with a longer lag has the warning colour


def context(request: HttpRequest) -> dict[str, Any]:
    """Return the figures for an operator with REQUIRED_PERMISSIONS, and an empty dict for others."""
    if not request.user.has_perms(REQUIRED_PERMISSIONS):
        return {}
    requested = request.GET.get("period")
    chosen = requested if requested in PERIODS else DEFAULT_PERIOD
    figures = report.make(report.last_period(PERIODS[chosen]))
    return {
        "report": figures,
        "max_read_operations": f"{report.MAX_READ_OPERATIONS:,}",
        "periods": [(name, name == chosen) for name in PERIODS],
        "tiles": [_completed(figures), _rejected(figures), _inbox(figures), _verification(figures)],
        "chart": figures.movements
        and figures.refusals
        and columns.draw(figures.period, figures.movements, figures.refusals),
        "lists": _lists(figures),
    }


# --- Single figures ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tile:
    title: str
    figure: str = "left out"
    remark: str = ""
    colour: str = "text-important"


def _completed(figures: Report) -> Tile:
    movements = figures.movements
    if movements is None:
        return Tile("Completed")
    return Tile("Completed", _count(sum(movements.steps), movements.is_estimate))


def _rejected(figures: Report) -> Tile:
    refusals = figures.refusals
    if refusals is None:
        return Tile("Rejected")
    rejected = sum(refusals.steps)
    return Tile("Rejected", _count(rejected, refusals.is_estimate), _share(rejected, figures.movements))


def _share(rejected: int, movements: Movements | None) -> str:
    if movements is None or not rejected:
        return ""
    return f"{rejected / (rejected + sum(movements.steps)):.1%} of all operations"


def _inbox(figures: Report) -> Tile:
    waiting = figures.inbox
    if waiting is None:
        return Tile("Inbox")
    remark = "empty" if waiting.oldest is None else f"the oldest waits for {_age(waiting.oldest)}"
    entries = f"{waiting.entries:,}"
    if waiting.set_aside:
        return Tile("Inbox", entries, f"{remark}; {waiting.set_aside:,} set aside", WARNING_COLOUR)
    return Tile("Inbox", entries, remark)


def _verification(figures: Report) -> Tile:
    title = "Last verification"
    if report.LAST_CHECK in figures.left_out:
        return Tile(title)
    if figures.last_check is None:
        return Tile(title, "never", "run manage.py verify_ledger", WARNING_COLOUR)
    return Tile(title, *_verdict(figures.last_check))


def _verdict(check: LedgerCheck) -> tuple[str, str, str]:
    remark = f"{_age(timezone.now() - check.ended_at)} ago, {check.wallets:,} wallets"
    if check.differences:
        return f"{check.differences:,} differences", remark, BAD_COLOUR
    return "no differences", remark, GOOD_COLOUR


# --- Bar charts -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    figure: str
    length: str  # in percent
    colour: str = NEUTRAL_COLOUR


@dataclass(frozen=True, slots=True)
class Bars:
    title: str
    bars: Sequence[Bar]
    empty_text: str = "None in this period."


def _lists(figures: Report) -> list[Bars]:
    """Return the bar charts whose figures are not left out."""
    lists = []
    if figures.movements:
        lists.append(_volumes(figures.movements))
    if figures.refusals:
        lists.append(_reasons(figures.refusals))
    if figures.busiest:
        lists += [_by_operations(figures.busiest.by_operations), _by_volume(figures.busiest.by_volume)]
    if figures.subscribers:
        lists.append(_subscribers(figures.subscribers))
    return lists


def _volumes(movements: Movements) -> Bars:
    """Scale the bars of each currency by themselves: amounts in two currencies cannot be compared."""
    highest: dict[str, Decimal] = {}
    for volume in movements.volumes:
        highest[volume.currency] = max(volume.amount, highest.get(volume.currency, Decimal(0)))
    bars = [
        Bar(
            f"{volume.type.replace('_', ' ').capitalize()}, {_count(volume.count, movements.is_estimate)}",
            _amount(volume.amount, volume.currency),
            _length(volume.amount, highest[volume.currency]),
        )
        for volume in movements.volumes
    ]
    return Bars("Volume by currency", bars)


def _reasons(refusals: Refusals) -> Bars:
    highest = max((count for _, count in refusals.reasons), default=0)
    bars = [
        Bar(reason, _count(count, refusals.is_estimate), _length(count, highest), BAD_COLOUR)
        for reason, count in refusals.reasons
    ]
    return Bars("Refusals by reason", bars)


def _by_operations(wallets: Sequence[BusyWallet]) -> Bars:
    highest = max((wallet.operations for wallet in wallets), default=0)
    bars = [
        Bar(_wallet_link(wallet), f"{wallet.operations:,}", _length(wallet.operations, highest))
        for wallet in wallets
    ]
    return Bars("Busiest wallets, by operations", bars)


def _by_volume(wallets: Sequence[BusyWallet]) -> Bars:
    highest: dict[str, Decimal] = {}
    for wallet in wallets:
        highest.setdefault(wallet.currency, wallet.volume)
    bars = [
        Bar(
            _wallet_link(wallet),
            _amount(wallet.volume, wallet.currency),
            _length(wallet.volume, highest[wallet.currency]),
        )
        for wallet in wallets
    ]
    return Bars("Busiest wallets, by volume", bars)


def _subscribers(states: Sequence[DeliveryState]) -> Bars:
    longest_lag = max(state.lag for state in states)
    bars = [
        Bar(state.name, _state_text(state), _length(state.lag, longest_lag), _state_colour(state))
        for state in states
    ]
    return Bars("Subscribers, by lag", bars)


def _state_text(state: DeliveryState) -> str:
    texts = [] if state.is_enabled else ["disabled"]
    texts += [f"{state.lag:.1f} s" if state.lag < LATE_LAG_SECONDS else _age(timedelta(seconds=state.lag))]
    texts += [f"{state.parked:,} parked wallets"] if state.parked else []
    texts += [f"{state.dead:,} dead letters"] if state.dead else []
    return ", ".join(texts)


def _state_colour(state: DeliveryState) -> str:
    if state.dead or not state.is_enabled:
        return BAD_COLOUR
    return WARNING_COLOUR if state.lag >= LATE_LAG_SECONDS or state.parked else GOOD_COLOUR


# --- Formatting -------------------------------------------------------------------------------------
def _wallet_link(wallet: BusyWallet) -> str:
    return link_by_id(Wallet, wallet.id, Truncator(wallet.label).chars(40) or f"…{str(wallet.id)[-12:]}")


def _count(count: int, is_estimate: bool) -> str:
    return f"≈ {count:,}" if is_estimate else f"{count:,}"


def _amount(amount: Decimal, currency: str) -> str:
    return f"{Decimal(money.format_amount(amount, currency)):,f} {currency}"


def _length(value: float | Decimal, highest: float | Decimal) -> str:
    return f"{float(value) / float(highest) * 100:.2f}" if highest else "0"


def _age(age: timedelta) -> str:
    if age < timedelta(minutes=1):
        return f"{max(age.total_seconds(), 0):.0f} s"
    return timesince(timezone.now() - age)
