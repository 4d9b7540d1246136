"""The operators' start page: how the ledger fares, and what it did lately."""

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
USUAL: Final = "day"
REQUIRED_PERMISSIONS: Final = ("wallets.view_operation", "wallets.view_wallet")
PLAIN: Final = "text-primary-600 dark:text-primary-500"
GOOD: Final = "text-green-700 dark:text-green-400"
BAD: Final = "text-red-700 dark:text-red-400"
DOUBTFUL: Final = "text-orange-700 dark:text-orange-400"
LATE_SECONDS: Final = 60  # seconds; a subscriber that is further behind is shown as such


def context(request: HttpRequest) -> dict[str, Any]:
    """Return the figures of the page for an operator with REQUIRED_PERMISSIONS, otherwise nothing."""
    if not request.user.has_perms(REQUIRED_PERMISSIONS):
        return {}
    asked = request.GET.get("period")
    chosen = asked if asked in PERIODS else USUAL
    made = report.make(report.last(PERIODS[chosen]))
    return {
        "report": made,
        "most": f"{report.MAX_READ_OPERATIONS:,}",
        "periods": [(name, name == chosen) for name in PERIODS],
        "tiles": [_completed(made), _rejected(made), _inbox(made), _verification(made)],
        "chart": made.movements
        and made.refusals
        and columns.draw(made.period, made.movements, made.refusals),
        "lists": _lists(made),
    }


# --- Single figures ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tile:
    title: str
    figure: str = "left out"
    remark: str = ""
    colour: str = "text-important"


def _completed(made: Report) -> Tile:
    found = made.movements
    return Tile("Completed", _count(sum(found.steps), found.is_estimate)) if found else Tile("Completed")


def _rejected(made: Report) -> Tile:
    found = made.refusals
    if found is None:
        return Tile("Rejected")
    rejected = sum(found.steps)
    return Tile("Rejected", _count(rejected, found.is_estimate), _share(rejected, made.movements))


def _share(rejected: int, movements: Movements | None) -> str:
    if movements is None or not rejected:
        return ""
    return f"{rejected / (rejected + sum(movements.steps)):.1%} of all"


def _inbox(made: Report) -> Tile:
    waiting = made.inbox
    if waiting is None:
        return Tile("Inbox")
    remark = f"the oldest for {_age(waiting.oldest)}" if waiting.oldest is not None else "nothing waits"
    if waiting.set_aside:
        return Tile("Inbox", f"{waiting.entries:,}", f"{remark}; {waiting.set_aside:,} set aside", DOUBTFUL)
    return Tile("Inbox", f"{waiting.entries:,}", remark)


def _verification(made: Report) -> Tile:
    title = "Last verification"
    if report.LAST_CHECK in made.left_out:
        return Tile(title)
    if made.last_check is None:
        return Tile(title, "never", "manage.py verify_ledger does it", DOUBTFUL)
    return Tile(title, *_verdict(made.last_check))


def _verdict(check: LedgerCheck) -> tuple[str, str, str]:
    remark = f"{_age(timezone.now() - check.ended_at)} ago, {check.wallets:,} wallets"
    if check.differences:
        return f"{check.differences:,} differences", remark, BAD
    return "all is right", remark, GOOD


# --- Side by side -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    figure: str
    length: str  # in per cent
    colour: str = PLAIN


@dataclass(frozen=True, slots=True)
class Bars:
    title: str
    bars: Sequence[Bar]
    nothing: str = "Nothing in this time."


def _lists(made: Report) -> list[Bars]:
    """Those that are not left out."""
    lists = []
    if made.movements:
        lists.append(_volumes(made.movements))
    if made.refusals:
        lists.append(_reasons(made.refusals))
    if made.busiest:
        lists += [_hot(made.busiest.hot), _top(made.busiest.top)]
    if made.subscribers:
        lists.append(_subscribers(made.subscribers))
    return lists


def _volumes(movements: Movements) -> Bars:
    """Amounts of one currency beside each other; those of two do not compare."""
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
        Bar(reason, _count(count, refusals.is_estimate), _length(count, highest), BAD)
        for reason, count in refusals.reasons
    ]
    return Bars("Refusals by reason", bars, "None in this time.")


def _hot(wallets: Sequence[BusyWallet]) -> Bars:
    highest = max((wallet.operations for wallet in wallets), default=0)
    bars = [
        Bar(_name(wallet), f"{wallet.operations:,}", _length(wallet.operations, highest))
        for wallet in wallets
    ]
    return Bars("Hot wallets, by operations", bars)


def _top(wallets: Sequence[BusyWallet]) -> Bars:
    highest: dict[str, Decimal] = {}
    for wallet in wallets:
        highest.setdefault(wallet.currency, wallet.volume)
    bars = [
        Bar(
            _name(wallet),
            _amount(wallet.volume, wallet.currency),
            _length(wallet.volume, highest[wallet.currency]),
        )
        for wallet in wallets
    ]
    return Bars("Top wallets, by volume", bars)


def _subscribers(standings: Sequence[DeliveryState]) -> Bars:
    longest = max(standing.lag for standing in standings)
    bars = [
        Bar(standing.name, _standing(standing), _length(standing.lag, longest), _colour(standing))
        for standing in standings
    ]
    return Bars("Subscribers, by how far they are behind", bars)


def _standing(standing: DeliveryState) -> str:
    said = [f"{standing.lag:.1f} s" if standing.lag < LATE_SECONDS else _age(timedelta(seconds=standing.lag))]
    said += [f"{standing.parked:,} wallets wait"] if standing.parked else []
    said += [f"{standing.dead:,} dead letters"] if standing.dead else []
    return ", ".join(said if standing.is_enabled else ["disabled", *said])


def _colour(standing: DeliveryState) -> str:
    if standing.dead or not standing.is_enabled:
        return BAD
    return DOUBTFUL if standing.lag >= LATE_SECONDS or standing.parked else GOOD


# --- How they are written ---------------------------------------------------------------------------
def _name(wallet: BusyWallet) -> str:
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
