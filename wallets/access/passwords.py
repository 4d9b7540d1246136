"""Passwords are hashed at a cost that guesses cannot pay: a third of a second of a core each.

So it is done one at a time in a process, by a thread beside the one that serves requests (OpenSSL lets go of
Python's lock), and few may wait for it. Logging in cannot take the service's time.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import gevent
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from gevent import monkey

from wallets.apps import give_back_connection
from wallets.problems import TooManyRequests

T = TypeVar("T")

MAX_PENDING_HASHES: Final = 8  # hashed or waiting, in a process: three seconds for the last of them


class Hasher(PBKDF2PasswordHasher):
    """Django's own, in its turn."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Raises TooManyRequests where too many wait already."""
        return _in_turn(partial(super().encode, password, salt, iterations))


_room = threading.BoundedSemaphore(MAX_PENDING_HASHES)
_turn = threading.Lock()


def _in_turn(work: Callable[[], T]) -> T:
    if not _room.acquire(blocking=False):
        raise TooManyRequests("Too many are logging in.")
    try:
        give_back_connection()  # others need it meanwhile
        with _turn:
            return _beside(work)
    finally:
        _room.release()


def _beside(work: Callable[[], T]) -> T:
    """In a real thread, where the others are greenlets of this one; else we are in one already."""
    if not monkey.is_module_patched("threading"):
        return work()
    done: Any = gevent.get_hub().threadpool.apply(work)
    result: T = done
    return result
