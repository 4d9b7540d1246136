"""Filters of the lists of operations and wallets, each read from an index in bounded time.

A list is read in the order of one index, newest first. Filters that this index does not serve are applied to
the rows as they are read, and a request reads at most MAX_SCANNED_ROWS of them: then its page may be shorter
than the limit, and its cursor continues the search. So no combination of filters makes an expensive request.

A value that few rows have (MAX_MATCHES) is looked up in its own index first, if that index has no order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.db.models import F, Func, Q, QuerySet, TextField

from wallets.contract.request_schemas import OperationSearchQuery, WalletSearchQuery
from wallets.models import Operation, OperationQuerySet, User, Wallet, WalletQuerySet, subquery_of

MAX_MATCHES: Final = 1000
RowsT = TypeVar("RowsT", bound=QuerySet[Any])

# Types with an index in the order of time: within a wallet (operation_type_idx), and in all wallets.
_RARE_TYPES: Final = frozenset(
    ("TRANSFER_IN", "TRANSFER_OUT", "HOLD", "CAPTURE", "VOID", "REVERSAL_IN", "REVERSAL_OUT")
)
_RARE_TYPES_OF_ALL_WALLETS: Final = frozenset(("TRANSFER_OUT",))


@dataclass(frozen=True, slots=True)
class Search(Generic[RowsT]):
    """The matching rows; and, if not all filters use one index, the rows of that index (`scanned`)."""

    rows: RowsT
    scanned: RowsT | None = None


def search_operations(
    query: OperationSearchQuery, owner_restriction: int | None
) -> Search[OperationQuerySet]:
    """Return the operations that match the query.

    With an owner restriction, the query must name a wallet, which the caller has checked, or an idempotency
    key or a transfer: then only operations of this user's wallets match.
    """
    operations = Operation.objects.all()
    period = _given(created_at__gte=query.from_, created_at__lt=query.to)
    residual = Q(**_given(amount__gte=query.min_amount, amount__lte=query.max_amount))
    if query.idempotency_key is not None or query.transfer_id is not None:  # a few rows
        if query.idempotency_key is not None:
            operations = operations.alias(sent_key=_SENT_KEY).filter(
                sent_key=query.idempotency_key, idempotency_key__isnull=False
            )
        exact = _given(transfer_id=query.transfer_id, wallet_id=query.wallet_id, status=query.status)
        exact |= _given(wallet__owner_id=owner_restriction, reference=query.reference or None) | period
        return Search(operations.filter(residual & _types(query.type) & _metadata(query.metadata), **exact))
    index = Q(**period)
    if query.wallet_id is not None:
        index &= Q(wallet_id=subquery_of(query.wallet_id))
    if query.reference:
        index &= Q(reference=query.reference) & ~Q(reference="")
    return _scan(operations, query, index, residual)


def _scan(
    operations: OperationQuerySet, query: OperationSearchQuery, index: Q, residual: Q
) -> Search[OperationQuerySet]:
    rare_types = _RARE_TYPES if query.wallet_id else _RARE_TYPES_OF_ALL_WALLETS
    status = Q(**_given(status=query.status))
    if query.reference:
        residual &= status & _types(query.type)
    elif query.status == Operation.Status.REJECTED:
        index, residual = index & status, residual & _types(query.type)
    elif query.type is not None and len(query.type) == 1 and query.type[0] in rare_types:
        index, residual = index & _types(query.type), residual & status
    else:
        residual &= status & _types(query.type)
    if query.metadata:
        matches = _metadata(query.metadata)
        ids = None if query.wallet_id or query.reference else _few_ids(operations.filter(matches))
        if ids is not None:
            return Search(operations.filter(index & residual, id__in=ids))
        residual &= matches
    return Search(operations.filter(index & residual), operations.filter(index) if residual else None)


def search_wallets(query: WalletSearchQuery, owner_restriction: int | None) -> Search[WalletQuerySet]:
    """Return the wallets that match the query; with an owner restriction, only those of this user."""
    wallets = Wallet.objects.with_expired()
    index = Q() if owner_restriction is None else Q(owner_id=owner_restriction)
    residual = Q(**_given(currency=query.currency, status=query.status))
    if query.owner_email is not None:
        owner_id = User.objects.by_email(query.owner_email).values_list("id", flat=True).first()
        index &= Q(owner_id=owner_id) if owner_id is not None else Q(pk__in=[])
    if query.external_id is not None:
        return Search(
            wallets.filter(index & residual & _wallet_matches(query), external_id=query.external_id)
        )
    if query.label or query.metadata:
        matches = _wallet_matches(query)
        ids = None if index else _few_ids(Wallet.objects.filter(matches))
        if ids is not None:
            return Search(wallets.filter(index & residual, id__in=ids))
        residual &= matches
    return Search(wallets.filter(index & residual), wallets.filter(index) if residual else None)


def _wallet_matches(query: WalletSearchQuery) -> Q:
    label = Q(label__istartswith=query.label) if query.label else Q()
    return label & _metadata(query.metadata)


def _types(types: list[str] | None) -> Q:
    return Q() if types is None else Q(type__in=types)


def _metadata(filters: Mapping[str, str]) -> Q:
    """Return the filter for these values of top-level keys. `7` is the string or the number."""
    found = Q()
    for key, text in filters.items():
        values = [text, *_json_scalar(text)]
        of_key = Q()
        for value in values:
            of_key |= Q(metadata__contains={key: value})
        found &= of_key
    return found & ~Q(metadata={}) if filters else found  # the predicate of the index


def _json_scalar(text: str) -> list[Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    return [value] if isinstance(value, int | float | bool) or value is None else []


def _few_ids(rows: QuerySet[Any]) -> list[UUID] | None:
    """Return the ids of the rows, or None if there are more than MAX_MATCHES.

    The lookup is bounded too: a GIN index would otherwise collect all matching rows before the first one.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL gin_fuzzy_search_limit = {MAX_MATCHES * 4}")
        ids = list(rows.order_by().values_list("id", flat=True)[: MAX_MATCHES + 1])
    return ids if len(ids) <= MAX_MATCHES else None


def _given(**filters: Any) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


# As in operation_key_idx: the key without its namespace.
_SENT_KEY: Final = Func(
    F("idempotency_key"), template="split_part(%(expressions)s, ' ', -1)", output_field=TextField()
)
