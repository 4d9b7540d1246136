"""Filters of the lists of operations and wallets, each read from an index in bounded time.

A list is read in the order of one index, newest first. Filters that this index does not serve are applied to
the rows as they are read, and a request reads a limited number of them (paging.py): then its page may be
shorter than the limit, and its cursor continues the search. A filter whose index has no order is looked up
first: if at most MAX_MATCHES rows have the value, they are the candidates of the list. Metadata that many of
the newest rows have is not looked up: it is met soon while they are read. So no combination of filters makes
an expensive request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Func, Q, QuerySet, TextField

from wallets.access.rights import Principal
from wallets.contract.request_schemas import OperationSearchQuery, WalletSearchQuery
from wallets.models import Operation, OperationQuerySet, User, Wallet, WalletQuerySet, subquery_of

MAX_MATCHES: Final = 500
SAMPLED_ROWS: Final = 500  # the newest rows
MAX_SAMPLED_MATCHES: Final = 10  # among the sampled rows
RowsT = TypeVar("RowsT", bound=QuerySet[Any])

# Types with an index in the order of time: within a wallet (operation_type_idx), and in all wallets.
_RARE_TYPES: Final = frozenset(
    ("TRANSFER_IN", "TRANSFER_OUT", "HOLD", "CAPTURE", "VOID", "REVERSAL_IN", "REVERSAL_OUT")
)
_RARE_TYPES_OF_ALL_WALLETS: Final = frozenset(("TRANSFER_OUT",))


@dataclass(frozen=True, slots=True)
class Search(Generic[RowsT]):
    """The matching rows, and how a page of them is read."""

    rows: RowsT
    scanned: RowsT | None = None  # the rows of the index, if it does not serve all filters
    has_few_rows: bool = False  # at most MAX_MATCHES candidates: they are sorted


def search_operations(query: OperationSearchQuery, caller: Principal) -> Search[OperationQuerySet]:
    """Return the operations that match the query.

    If the caller has an owner restriction, the query must name a wallet that the caller may read, an
    idempotency key or a transfer.
    """
    operations = Operation.objects.alias(sent_key=SENT_KEY)
    index = Q(**_given(created_at__gte=query.from_, created_at__lt=query.to))
    if query.wallet_id is not None:
        index &= Q(wallet_id=subquery_of(query.wallet_id))
    if query.reference:
        index &= Q(reference=query.reference) & ~Q(reference="")
    transfer, metadata = Q(**_given(transfer_id=query.transfer_id)), metadata_filter(query.metadata)
    residual = [
        *(_status(query.status), _types(query.type), transfer, metadata),
        Q(**_given(amount__gte=query.min_amount, amount__lte=query.max_amount)),
    ]
    unordered = [transfer]
    if caller.owner_restriction is not None:
        own = Wallet.objects.filter(owner_id=caller.owner_restriction).values("id")
        if query.idempotency_key is not None:
            # By wallet and key, so that the keys of other callers cost nothing.
            matches = Q(wallet_id__in=own, idempotency_key__in=_stored_keys(query.idempotency_key, caller))
            return Search(operations.filter(index, matches, *residual), has_few_rows=True)
        residual.append(Q(wallet_id__in=own) if query.transfer_id is not None else Q())
    elif query.idempotency_key is not None:
        residual.append(Q(sent_key=query.idempotency_key, idempotency_key__isnull=False))
        unordered.append(residual[-1])
    if query.wallet_id is None and not query.reference and not _is_frequent(operations, metadata):
        unordered.append(metadata)
    return _search(operations, index, residual, unordered, _indexed(query))


def search_wallets(query: WalletSearchQuery, owner_restriction: int | None) -> Search[WalletQuerySet]:
    """Return the wallets that match the query; with an owner restriction, only those of this user."""
    index = Q() if owner_restriction is None else Q(owner_id=owner_restriction)
    if query.owner_email is not None:
        owner_id = User.objects.by_email(query.owner_email).values_list("id", flat=True).first()
        index &= Q(owner_id=owner_id) if owner_id is not None else Q(pk__in=[])
    external_id = Q(**_given(external_id=query.external_id))
    label = Q(label__istartswith=query.label) if query.label else Q()
    metadata = metadata_filter(query.metadata)
    residual = [external_id, label, metadata, Q(**_given(currency=query.currency, status=query.status))]
    unordered = [external_id] if index else [external_id, label]
    if not index and not _is_frequent(Wallet.objects.all(), metadata):
        unordered.append(metadata)
    return _search(Wallet.objects.with_expired(), index, residual, unordered)


def _search(
    rows: RowsT,
    index: Q,
    residual: list[Q],
    unordered: list[Q],
    indexed: Q = Q(),  # noqa: B008 - constant
) -> Search[RowsT]:
    """Look up the filters in `unordered`; if none has few rows, scan the index.

    `indexed` is the filter of `residual` that the index serves too.
    """
    for matches in unordered:
        if matches and (ids := _few_ids(rows.filter(matches).order_by())) is not None:
            return Search(rows.filter(index, *residual, id__in=ids), has_few_rows=True)
    found = rows.filter(index, *residual)
    is_served = all(matches == indexed for matches in residual if matches)
    return Search(found, None if is_served else rows.filter(index, indexed))


def _is_frequent(rows: QuerySet[Any], metadata: Q) -> bool:
    """Whether many of the newest rows match: then a lookup is slow, as a GIN index reads all matches."""
    if not metadata:
        return False
    is_match = ExpressionWrapper(metadata, output_field=BooleanField())
    newest = rows.order_by("-created_at", "-id").values_list(is_match, flat=True)[:SAMPLED_ROWS]
    return sum(map(bool, newest)) > MAX_SAMPLED_MATCHES


def _few_ids(rows: QuerySet[Any]) -> list[UUID] | None:
    """Return the ids of the rows, or None if there are more than MAX_MATCHES."""
    ids = bounded_ids(rows)
    return ids if len(ids) <= MAX_MATCHES else None


def bounded_ids(rows: QuerySet[Any]) -> list[UUID]:
    """Return the ids of the first rows, at most MAX_MATCHES + 1. If there are so many, others may exist.

    The lookup is bounded too: without the first setting, a GIN index would collect all matching rows before
    the first one; without the second, a scan could read the whole table before it meets a frequent value.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL gin_fuzzy_search_limit = {MAX_MATCHES * 4}")
        cursor.execute("SET LOCAL enable_seqscan = off")
        return list(rows.values_list("id", flat=True)[: MAX_MATCHES + 1])


# --- Filters ----------------------------------------------------------------------------------------
def _indexed(query: OperationSearchQuery) -> Q:
    """Return the filter by status or type that has an index in the order of time."""
    rare_types = _RARE_TYPES if query.wallet_id else _RARE_TYPES_OF_ALL_WALLETS
    if query.reference:
        return Q()
    if query.status == Operation.Status.REJECTED:
        return _status(query.status)
    is_rare = query.type is not None and len(query.type) == 1 and query.type[0] in rare_types
    return _types(query.type) if is_rare else Q()


def _stored_keys(key: str, caller: Principal) -> list[str | None]:
    return [key, caller.stored_key(key)]  # without a namespace, as before version 0.7, or with it


def _status(status: str | None) -> Q:
    return Q() if status is None else Q(status=status)


def _types(types: list[str] | None) -> Q:
    return Q() if types is None else Q(type__in=types)


def metadata_filter(filters: Mapping[str, str]) -> Q:
    """Return the filter for these values of top-level keys. `7` is the string or the number."""
    if not filters:
        return Q()
    found = ~Q(metadata={})  # the predicate of the index
    for key, text in filters.items():
        of_key = Q(metadata__contains={key: text})
        for value in _json_scalar(text):
            of_key |= Q(metadata__contains={key: value})
        found &= of_key
    return found


def _json_scalar(text: str) -> list[Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    return [value] if isinstance(value, int | float | bool) or value is None else []


def _given(**filters: Any) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


# As in operation_key_idx: the key without its namespace.
SENT_KEY: Final = Func(
    F("idempotency_key"), template="split_part(%(expressions)s, ' ', -1)", output_field=TextField()
)
