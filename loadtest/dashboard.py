"""The picture of the dashboard in docs/images: `python -m loadtest.dashboard`.

There is no Grafana in it: the panels' queries are asked of a real Prometheus that has read the real service
under load, and drawn here. Everything runs on 127.0.0.1, for three minutes.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from loadtest import panels, wrk
from loadtest.bench import FOLDER, create_wallets, paths_file
from loadtest.servers import Kind, Server, running, scratch_cluster
from local import ROOT, LocalError, prometheus
from local.postgres import Cluster
from local.processes import run
from local.prometheus import Prometheus
from local.service import Address, Inbox, Relay, environment, manage

TOKEN: Final = "read-by-nobody-else"  # noqa: S105
OBSERVED: Final = Kind("walletsvc/gunicorn.py", "walletsvc.wsgi", (("METRICS_TOKEN", TOKEN),))
PHASES: Final = (4, 16, 64)  # connections
SECONDS: Final = 60.0  # each
STEP: Final = 2  # seconds between two points
WINDOW: Final = "15s"  # what Grafana would put in the place of $__rate_interval
PICTURE: Final = ROOT / "docs" / "images" / "dashboard.png"


def main() -> None:
    chromium = panels.chromium()
    with ExitStack() as stack:
        cluster = stack.enter_context(scratch_cluster(FOLDER / "postgres"))
        server = stack.enter_context(running(OBSERVED, cluster.url()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="walletsvc-prometheus-")))
        seen = stack.enter_context(prometheus.running(folder, server.address.bind, TOKEN))
        beside(stack, cluster, server.address)
        began = time.time()
        load(cluster, server)
        page = folder / "dashboard.html"
        page.write_text(panels.page(drawn(seen, began, time.time())))
        PICTURE.unlink(missing_ok=True)
        run([*chromium, f"--screenshot={PICTURE}", page.as_uri()])
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


def beside(stack: ExitStack, cluster: Cluster, address: Address) -> None:
    """The inbox's and the relay's processes, and a shop that is told of everything."""
    env = environment(cluster.url(), address) | {"LOG_LEVEL": "WARNING"}
    shop = stack.enter_context(listening())
    post(address, "/webhooks", {"name": "shop", "url": shop, "batch": 100})
    for part in (Inbox(env), Relay(env)):
        stack.callback(part.stop)


class Shop(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def listening() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/events"
        server.shutdown()


# --- The load ---------------------------------------------------------------------------------------
def load(cluster: Cluster, server: Server) -> None:
    wallets = create_wallets(cluster)
    env = environment(cluster.url(), server.address)
    is_over = threading.Event()
    threads = [threading.Thread(target=customer, args=[server.address, wallets[:2], is_over])]
    for number, connections in enumerate(PHASES):
        print(f"{connections} connections for {SECONDS:.0f} s", flush=True)
        threads += [
            worker(server, "POST", paths_file("POST-1", wallets[:1], "/operation"), connections),
            worker(server, "GET", paths_file("GET-1", wallets[:1], ""), max(1, connections // 4)),
            worker(server, "POST", paths_file("POST-9", wallets[:9], "/operation"), 1, is_for_later=True),
        ]
        for thread in threads[(0 if number == 0 else -3) :]:
            thread.start()
        time.sleep(SECONDS / 2)
        manage(env, "verify_ledger")
        for thread in threads[-3:]:
            thread.join()
    is_over.set()
    threads[0].join()


def worker(
    server: Server, method: str, paths: Path, connections: int, is_for_later: bool = False
) -> threading.Thread:
    post = wrk.Post(prefer="respond-async" if is_for_later else None)
    return threading.Thread(target=wrk.load, args=[server.url, method, paths, connections, SECONDS, post])


def customer(address: Address, wallets: list[str], is_over: threading.Event) -> None:
    """What is neither a deposit nor well meant, twenty times a second."""
    source, target = wallets
    transfer = {"sourceWalletId": source, "targetWalletId": target, "amount": "0.10"}
    while not is_over.wait(0.05):
        post(address, f"/wallets/{source}/operation", {"operationType": "WITHDRAW", "amount": "1000000000"})
        post(address, "/transfers", transfer | {"id": "0193a5d0-ac96-774b-8cce-b302099a8059"})
        post(address, "/transfers", transfer)
        post(address, f"/wallets/{uuid4()}/operation", {"operationType": "DEPOSIT", "amount": "1"})
        post(address, "/nowhere", {})


def post(address: Address, path: str, body: dict[str, Any]) -> int:
    with closing(HTTPConnection(address.bind, timeout=30)) as connection:
        connection.request("POST", f"/api/v1{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


# --- The queries ------------------------------------------------------------------------------------
def drawn(seen: Prometheus, began: float, ended: float) -> list[panels.Panel]:
    given = json.loads((prometheus.FOLDER / "grafana" / "dashboards" / "walletsvc.json").read_text())
    return [
        panels.Panel(
            panel, [line for target in panel["targets"] for line in lines(seen, target, began, ended)]
        )
        for panel in given["panels"]
    ]


def lines(seen: Prometheus, target: dict[str, str], began: float, ended: float) -> Iterator[panels.Line]:
    query = target["expr"].replace("$__rate_interval", WINDOW)
    for series in seen.ask("query_range", query=query, start=began, end=ended, step=STEP)["result"]:
        name = target["legendFormat"]
        for label, value in series["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        points = [(float(at) - began, float(value)) for at, value in series["values"] if value != "NaN"]
        yield panels.Line(name, points)


if __name__ == "__main__":
    try:
        main()
    except LocalError as error:
        sys.exit(f"dashboard: {error}")
