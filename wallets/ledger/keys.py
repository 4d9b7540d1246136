"""Idempotency keys as the ledger stores them: in the namespace of the clients that share them.

Clients with an owner restriction have a namespace for that owner: "owner:5 order-1". Unrestricted clients
have none: "order-1". A client's key contains no space, so the two forms never collide: a restricted client
cannot take a key that an unrestricted one is going to use.
"""


def namespace_of_owner(owner_id: int | None) -> str:
    """Return the namespace of clients with this owner restriction; None: of unrestricted clients."""
    return "" if owner_id is None else f"owner:{owner_id}"


def stored(namespace: str, key: str) -> str:
    """Return the stored form of a client's key."""
    return f"{namespace} {key}" if namespace else key


def namespace_of(key: str) -> str:
    """Return the namespace of a stored key."""
    return key.rpartition(" ")[0]


def as_sent(key: str) -> str:
    """Return the client's key of a stored key, as clients and operators see it."""
    return key.rpartition(" ")[2]
