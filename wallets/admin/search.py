"""Search in the lists: a term is looked up in each index that may contain it, and the found rows are united.

Each lookup reads at most MAX_MATCHES rows, so that a frequent term costs no more than a rare one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from unicodedata import normalize
from uuid import UUID

from django.db.models import Q, QuerySet

from wallets.contract.search import MAX_MATCHES, SENT_KEY, bounded_ids, metadata_filter
from wallets.ledger import keys
from wallets.models import Hold, InboxEntry, Operation, User, Wallet
from wallets.operation_types import TRANSFERS

MIN_ID_DIGITS: Final = 8  # fewer digits of an id are those of too many rows
MAX_OWNERS: Final = 100  # a search by the start of a name returns the wallets of at most this many users
MAX_INBOX_ROWS: Final = 10_000  # the oldest entries, which are searched without an index
ID_DIGITS: Final = 32
TERMS_HELP: Final = (
    "a reference, an idempotency key, metadata such as order=7, an id or its first"
    f" {MIN_ID_DIGITS} digits, an external id, or the e-mail address of an owner"
)
_START_OF_ID: Final = re.compile(rf"[0-9a-f]{{{MIN_ID_DIGITS},{ID_DIGITS}}}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Matches:
    """The ids of the found rows, and whether there are more of them."""

    ids: frozenset[UUID] = frozenset()
    is_cut: bool = False

    def __or__(self, other: "Matches") -> "Matches":
        return Matches(self.ids | other.ids, self.is_cut or other.is_cut)


def look_up(*lookups: QuerySet[Any]) -> Matches:
    """Unite the first MAX_MATCHES rows of each lookup. An index must serve its filter and its order."""
    found = Matches()
    for rows in lookups:
        ids = bounded_ids(rows)
        found |= Matches(frozenset(ids[:MAX_MATCHES]), len(ids) > MAX_MATCHES)
    return found


# --- Kinds of rows ----------------------------------------------------------------------------------
def find_operations(term: str) -> Matches:
    """Find operations by reference, idempotency key, metadata and id."""
    operations = Operation.objects.all()
    by_reference = operations.filter(reference=term).exclude(reference="").order_by("-created_at", "-id")
    by_key = operations.alias(sent_key=SENT_KEY).filter(sent_key=term, idempotency_key__isnull=False)
    lookups = [by_reference, by_key, *_by_id(operations, term), *_by_key_in_wallet(operations, term)]
    if metadata := _metadata(term):
        lookups.append(operations.filter(metadata))
    return look_up(*lookups)


def find_transfers(term: str) -> Matches:
    """Find transfers by either of their operations."""
    found = find_operations(term)
    transfers = Operation.objects.filter(id__in=found.ids, type__in=TRANSFERS)
    return Matches(_given(transfers.values_list("transfer_id", flat=True)), found.is_cut)


def find_holds(term: str) -> Matches:
    """Find holds by their id, and by the operations that placed, captured or voided them."""
    found = find_operations(term)
    operations = Operation.objects.filter(id__in=found.ids)
    placed = frozenset(operations.filter(type="HOLD").values_list("id", flat=True))
    ended = _given(operations.values_list("hold_id", flat=True))
    return Matches(placed | ended, found.is_cut) | look_up(*_by_id(Hold.objects.all(), term))


def find_inbox_entries(term: str) -> Matches:
    """Find entries by id, and the oldest MAX_INBOX_ROWS also by reference, idempotency key and metadata."""
    entries = InboxEntry.objects.all()
    oldest = entries.order_by("position").values("id")[:MAX_INBOX_ROWS]
    has_term = Q(reference=term) | Q(sent_key=term) | _metadata(term)
    scanned = entries.alias(sent_key=SENT_KEY).filter(has_term, id__in=oldest)
    return look_up(scanned, *_by_id(entries, term), *_by_key_in_wallet(entries, term))


def find_wallets(term: str) -> Matches:
    """Find wallets as `wallets_of_term` does, by metadata, and by the start of a label or owner's name."""
    wallets = Wallet.objects.all()
    # Labels are stored as they were sent, é as one or two characters.
    spellings = sorted({normalize(form, term) for form in ("NFC", "NFD")})
    named = User.objects.filter(username__istartswith=User.normalize_username(term))
    owners = list(named.values_list("id", flat=True)[: MAX_OWNERS + 1])
    lookups = [wallets.filter(label__istartswith=spelling) for spelling in spellings]
    if metadata := _metadata(term):
        lookups.append(wallets.filter(metadata))
    if owners:
        lookups.append(wallets.filter(owner__in=owners[:MAX_OWNERS]))
    return wallets_of_term(term) | look_up(*lookups) | Matches(is_cut=len(owners) > MAX_OWNERS)


def wallets_of_term(term: str) -> Matches:
    """Find wallets by id, external id and the owner's e-mail address.

    Lists of operations, transfers, holds and inbox entries show the rows of these wallets.
    """
    wallets = Wallet.objects.all()
    lookups = [wallets.filter(external_id=term), *_by_id(wallets, term)]
    if owner_ids := list(User.objects.by_email(term).values_list("id", flat=True)):
        lookups.append(wallets.filter(owner__in=owner_ids))
    return look_up(*lookups)


def _given(ids: Iterable[UUID | None]) -> frozenset[UUID]:
    return frozenset(id for id in ids if id is not None)


# --- Terms ------------------------------------------------------------------------------------------
def _by_id(rows: QuerySet[Any], term: str) -> Iterable[QuerySet[Any]]:
    """Look up the id, or the ids that start with these digits, newest first."""
    digits = term.replace("-", "")
    if _START_OF_ID.fullmatch(digits):
        first, last = (UUID(digits.ljust(ID_DIGITS, digit)) for digit in "0f")
        yield rows.filter(id__gte=first, id__lte=last).order_by("-id")


def _by_key_in_wallet(rows: QuerySet[Any], term: str) -> Iterable[QuerySet[Any]]:
    """Look up a wallet's id with an idempotency key, which other wallets may have too."""
    text, _, key = term.partition(" ")
    if key and (wallet_id := parse_id(text)):
        owner_id = Wallet.objects.filter(id=wallet_id).values_list("owner_id", flat=True).first()
        # As stored for an unrestricted caller, and for one that is restricted to the wallet's owner.
        stored = [key.strip(), keys.stored(keys.namespace_of_owner(owner_id), key.strip())]
        yield rows.filter(wallet_id=wallet_id, idempotency_key__in=stored)


def _metadata(term: str) -> Q:
    """Return the filter of a term such as `order=7`; an empty one for other terms."""
    key, sign, value = term.partition("=")
    return metadata_filter({key.strip(): value.strip()}) if key.strip() and sign else Q()


def parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
