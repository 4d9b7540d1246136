"""A model of a Kubernetes Deployment and its Service, as far as requests notice them.

A Service forwards each new connection to one of its pods for the life of the connection. A stopping pod
is removed from the Service after a moment, and gets SIGTERM at the end of preStop.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.faults.conftest import FaultTarget
from tests.support.faults.clients import Mix, RequestLoad
from tests.support.faults.database import Database

Address = tuple[str, int]

NOTICE_SECONDS = 2.0  # until the nodes know that a pod stops; a worker alone accepts for less time
PRE_STOP_SECONDS = 3.0  # longer, as in deploy/kubernetes/base/web.yaml


class Balancer:
    """A Service: it listens on its own port during the block and forwards connections to `endpoints`."""

    def __init__(self) -> None:
        self.endpoints: list[Address] = []
        self.led = Counter[Address]()  # number of connections by endpoint

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._lead, "127.0.0.1", 0))
        self.address: Address = self._server.sockets[0].getsockname()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _lead(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        pod = random.choice(self.endpoints)  # noqa: S311
        self.led[pod] += 1
        with suppress(OSError):  # the pod has stopped: the client's connection is closed
            server, to_server = await asyncio.open_connection(*pod)
            await asyncio.gather(_carry(client, to_server), _carry(server, to_client))
        to_client.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while said := await source.read(65_536):
            target.write(said)
            await target.drain()
    finally:
        target.close()


class Deployment:
    """Two pods behind a Service; each pod is a complete service."""

    def __init__(self, database: Database, balancer: Balancer) -> None:
        self._database = database
        self._balancer = balancer
        self.pods: list[FaultTarget] = []

    def __enter__(self) -> Self:
        for _ in range(2):
            self._add()
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.stop()
            self._database.services -= 1

    @contextmanager
    def under_load(self) -> Iterator[RequestLoad]:
        hot, *cold = wallets = self.pods[0].open(21)
        with self.pods[0].serving(Mix(hot, cold), wallets, at=self._balancer.address) as load:
            yield load

    def replace(self, old: FaultTarget) -> None:
        """Replace the pods (maxSurge 1, maxUnavailable 0): a new pod is ready before an old one stops."""
        self._add()
        time.sleep(NOTICE_SECONDS)
        self._balancer.endpoints.remove(old.address)
        time.sleep(PRE_STOP_SECONDS - NOTICE_SECONDS)
        self.pods.remove(old)
        old.end()
        self._database.services -= 1

    def _add(self) -> None:
        pod = FaultTarget(self._database)
        self.pods.append(pod)
        self._database.services += 1
        pod.start()
        self._balancer.endpoints.append(pod.address)
