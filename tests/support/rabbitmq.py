"""A real RabbitMQ server (Debian's package) on loopback ports, with its own folder."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pika
from pika.exceptions import AMQPError

from local.postgres import free_port
from wallets.events.destinations import EXCHANGE_OR_TOPIC

SCRIPTS = Path("/usr/lib/rabbitmq/bin")  # not Debian's wrapper, which switches to the user `rabbitmq`
PASSWORD = "a-password-for-tests"
CONFIG = f"""
default_user = walletsvc
default_pass = {PASSWORD}
loopback_users = none
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 1MB
"""


class Server:
    def __init__(self, folder: Path, settings: str = "") -> None:
        self._folder = folder
        self.port = free_port()
        (folder / "rabbitmq.conf").write_text(CONFIG + settings)
        (folder / "plugins").write_text("[].\n")
        (folder / "environment").touch()
        self._environment = os.environ | {
            "HOME": str(folder),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            "RUNNING_UNDER_SYSTEMD": "true",  # makes the started process the server, not a shell
        }

    def url(self, password: str = PASSWORD, port: int = 0, heartbeat: int = 60) -> str:
        return f"amqp://walletsvc:{password}@127.0.0.1:{port or self.port}/?heartbeat={heartbeat}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        # Start epmd here: one that RabbitMQ starts would outlive the test.
        epmd = subprocess.Popen(["epmd"], env=self._environment)
        try:
            self.start()
            yield self
        finally:
            self.kill()
            epmd.kill()
            epmd.wait()

    def start(self) -> None:
        """Start the server and wait until it answers; durable queues and exchanges are kept."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [SCRIPTS / "rabbitmq-server"], env=self._environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output").read_text()
            assert time.monotonic() < deadline, "RabbitMQ does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def control(self, *arguments: str) -> None:
        subprocess.run(
            [SCRIPTS / "rabbitmqctl", *arguments],
            env=self._environment,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        try:
            pika.BlockingConnection(pika.URLParameters(self.url())).close()
        except (AMQPError, OSError):
            return False
        return True


class Queue:
    """A queue that gets all events; a Broker (tests/support/brokers.py)."""

    def __init__(self, server: Server, **arguments: Any) -> None:
        self._server = server
        self.name = f"tests-{uuid4()}"
        self.url = server.url()
        self.messages: list[tuple[Any, Any, bytes]] = []
        with self.channel() as channel:
            channel.exchange_declare(EXCHANGE_OR_TOPIC, "topic", durable=True)
            channel.queue_declare(self.name, durable=True, arguments=arguments)
            channel.queue_bind(self.name, EXCHANGE_OR_TOPIC, "#")

    def received(self) -> list[dict[str, Any]]:
        with suppress(AMQPError, OSError), self.channel() as channel:  # the server may be down
            while (message := channel.basic_get(self.name, auto_ack=True))[0]:
                self.messages.append(message)
        return [json.loads(content) for _, _, content in self.messages]

    def stop(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()

    def delete(self) -> None:
        with self.channel() as channel:
            channel.queue_delete(self.name)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with closing(pika.BlockingConnection(pika.URLParameters(self._server.url()))) as connection:
            yield connection.channel()


class BreakableConnection:
    """A proxy in front of the server that can break the connection after a number of bytes."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._bytes_left: int | None = None  # bytes from the client until the break
        self._threads = [threading.Thread(target=self._listen)]
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._cut()
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._ends):
            each.close()

    @property
    def connections(self) -> int:
        return len(self._ends) // 2

    def break_after(self, size: int) -> None:
        """Pass `size` more bytes to the server and one part of its response, then break the connection."""
        self._bytes_left = size

    def _listen(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._ends += [client, server]
                for forward, *ends in ((self._forward, client, server), (self._forward_back, server, client)):
                    self._threads.append(threading.Thread(target=forward, args=ends))
                    self._threads[-1].start()

    def _forward(self, client_side: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := client_side.recv(65536):
                if self._bytes_left is not None:
                    chunk = chunk[: self._bytes_left]
                    self._bytes_left -= len(chunk)
                server.sendall(chunk)
                if self._bytes_left == 0:
                    return
        self._cut()

    def _forward_back(self, server: socket.socket, client_side: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(65536):
                client_side.sendall(chunk)
                if self._bytes_left == 0:
                    self._bytes_left = None
                    break
        self._cut()

    def _cut(self) -> None:
        for each in self._ends:
            with suppress(OSError):  # already closed
                each.shutdown(socket.SHUT_RDWR)
