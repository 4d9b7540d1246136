"""Idempotency keys as the ledger stores them: in the namespace of the callers who share them.

Callers that are restricted to an owner's wallets have a namespace for that owner: "owner:5 order-1". Those
that are not have none: "order-1". A client's key contains no space, so the two forms never meet: a restricted
caller cannot occupy a key that the bank is going to use.
"""


def namespace_of_owner(owner_id: int | None) -> str:
    """The namespace of callers that are restricted to this user's wallets; None: of unrestricted ones."""
    return "" if owner_id is None else f"owner:{owner_id}"


def stored(namespace: str, key: str) -> str:
    """The form in which the ledger stores the client's key."""
    return f"{namespace} {key}" if namespace else key


def namespace_of(key: str) -> str:
    """The namespace of a stored key."""
    return key.rpartition(" ")[0]


def as_sent(key: str) -> str:
    """The client's key of a stored one, as clients and operators see it."""
    return key.rpartition(" ")[2]
