"""A receiver of webhooks that measures the delay of each completed operation, in milliseconds.

It prints its port, and at the end of its standard input its measurement as JSON.
"""

import asyncio
import sys
import time
from contextlib import suppress
from datetime import datetime

import orjson

COMPLETED = "wallet.operation.completed"
RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    def __init__(self) -> None:
        self.delays: list[float] = []
        self.times: list[float] = []  # of the arrivals, by time.time()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await asyncio.to_thread(sys.stdin.read)
        print(orjson.dumps({"delays": self.delays, "times": self.times}).decode(), flush=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                self._record(await reader.readexactly(length))
                writer.write(RESPONSE)
        writer.close()

    def _record(self, body: bytes) -> None:
        now = time.time()
        content = orjson.loads(body)
        for event in content if isinstance(content, list) else [content]:
            if event["type"] == COMPLETED:
                self.delays.append((now - datetime.fromisoformat(event["time"]).timestamp()) * 1000)
                self.times.append(now)


if __name__ == "__main__":
    asyncio.run(Receiver().serve())
