"""PostgreSQL's advisory locks: a class for each use, so that no use can take another's lock."""

from enum import StrEnum
from hashlib import blake2b
from uuid import UUID


class LockClass(StrEnum):
    """The use of a lock. At most 16 bytes, which BLAKE2b takes to separate the classes."""

    OPERATION_ID = "operation-id"  # a transaction with a command under an id of the client's choice
    SUBSCRIBER = "subscriber"  # the relay that delivers to this subscriber
    REGISTRATION = "registration"  # a transaction that registers a webhook
    OLD_DELIVERIES = "old-deliveries"  # a transaction that deletes old deliveries


def lock_key(lock_class: LockClass, id: UUID | None = None) -> int:
    """Return the bigint that `pg_advisory_lock` takes: a hash of the class and of all 128 bits of the id.

    Two ids may still share a key: a lock that is taken means "wait", never "the id is used".
    """
    digest = blake2b(id.bytes if id else b"", digest_size=8, person=lock_class.encode()).digest()
    return int.from_bytes(digest, "big", signed=True)
