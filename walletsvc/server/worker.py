"""gunicorn's gevent worker with a graceful shutdown: stop accepting, respond, close idle connections."""

import contextlib
import socket
import time
from typing import Any, Final

import gevent
import gunicorn.util
from gunicorn.http.errors import ParseException
from gunicorn.workers import ggevent

from wallets.observability import request_context
from walletsvc.server import balancing
from walletsvc.server.connection import Connection
from walletsvc.server.error_responses import write_problem

SKIP_CHUNK_BYTES: Final = 65_536  # of an unread body, in one read
LINGER_SECONDS: Final = 1.0  # in which active clients get "Connection: close" with their next response


class Worker(ggevent.GeventWorker):  # type: ignore[misc]
    def init_process(self) -> None:
        self.idle: dict[Connection, float] = {}  # with time.monotonic() of its last response
        self.connections = 0
        balancing.report(self.age, 0)
        balancing.Listener.worker = self.age
        super().init_process()

    def handle(self, listener: Any, sock: Any, addr: Any) -> None:
        client = Connection(sock)
        self.idle[client] = time.monotonic()
        self.connections += 1  # the listener has reported this count
        try:
            # gunicorn takes our address from the listener, which may be closed. The connection has it too.
            super().handle(client, client, addr)
        finally:
            self.idle.pop(client, None)
            self.connections -= 1
            if self.alive:
                balancing.report(self.age, self.connections)

    def handle_request(self, listener_name: Any, req: Any, client: Any, addr: Any) -> None:
        self.idle.pop(client, None)
        with client.in_request():
            try:
                super().handle_request(listener_name, req, client, addr)
            finally:
                client.flush()
                self.idle[client] = time.monotonic()
                request_context.request.set(None)
            skip_unread(req.body)
        # Without this, other connections would wait while one client pipelines requests.
        gevent.sleep(0)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        Connection.is_worker_stopping = True
        balancing.leave(self.age)
        gevent.spawn(self._close_idle)

    def _close_idle(self) -> None:
        began = time.monotonic()
        while True:
            time.sleep(LINGER_SECONDS / 10)
            limit = time.monotonic() - LINGER_SECONDS
            for client in [client for client, since in self.idle.items() if max(since, began) < limit]:
                # The worker still responds to a request that has arrived, and then closes the connection.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RD)


def skip_unread(body: Any) -> None:
    """Read the rest of a body, which would otherwise be parsed as the next request."""
    try:
        while not body.failed and body.read(SKIP_CHUNK_BYTES):
            pass
    except ParseException:
        # Close without a second response: the client would take it for the response to its next request.
        raise StopIteration from None


gunicorn.util.write_error = write_problem
ggevent.StreamServer = balancing.Listener
