"""Who is told what happens, and the relay as it really runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from uuid_utils.compat import uuid7

from wallets.events import delivery_state, log, webhooks
from wallets.models import Subscriber

EVENT_TIMEOUT_SECONDS = 60.0


@contextmanager
def subscribed(url: str, **fields: Any) -> Iterator[Subscriber]:
    """A webhook that is told what happens from now on, as long as it is needed."""
    id = fields.pop("id", None) or uuid7()
    subscriber = Subscriber.objects.create(
        id=id,
        kind=Subscriber.Kind.WEBHOOK,
        name=f"test {id}",
        url=url,
        secret=webhooks.new_secret(),
        **delivery_state.from_now_on() | fields,
    )
    try:
        yield subscriber
    finally:
        Subscriber.objects.filter(id=id).delete()


@contextmanager
def relaying(**environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`manage.py relay_events` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "relay_events"],
        env=os.environ | {"WEBHOOK_TARGETS": "any"} | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(happens: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + EVENT_TIMEOUT_SECONDS
    while not happens():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def horizon() -> int:
    """Return a horizon past all that was done; another transaction, such as an ANALYZE, delays it.

    The next horizon can be an earlier one, so the one that was waited for is returned.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        done = int(cursor.fetchone()[0])
    deadline = time.monotonic() + EVENT_TIMEOUT_SECONDS
    while (found := log.horizon()) < done:
        assert time.monotonic() < deadline, "a transaction does not end"
        time.sleep(0.02)
    return found
