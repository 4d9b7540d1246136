"""Prometheus beside a service that runs here, with the configuration and rules of deploy/observability."""

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from local import ROOT, LocalError
from local.postgres import free_port
from local.processes import bound, complaint, stop

FOLDER: Final = ROOT / "deploy" / "observability"
PATIENCE: Final = 60.0  # seconds


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise LocalError(f"the program {name} is missing: apt-get install prometheus")
    return found


class Prometheus:
    """What is asked of its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, what: str, **parameters: Any) -> Any:
        """Raises OSError where it is not answered, or refused."""
        url = f"{self.address}/api/v1/{what}?{urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        """What a query comes to now, where that is a single number."""
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def is_up(self) -> bool:
        try:
            return bool(self.value("sum(up)"))
        except OSError:
            return False


def configuration(folder: Path, target: str, token: str, interval: str) -> Path:
    """That of compose, but for where the service and its token are."""
    given = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    given["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    given["rule_files"] = [str(FOLDER / name) for name in given["rule_files"]]
    (job,) = given["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["authorization"]["credentials_file"] = str(folder / "token")
    (folder / "token").write_text(token)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(given))
    return path


@contextmanager
def running(folder: Path, target: str, token: str, interval: str = "1s") -> Iterator[Prometheus]:
    """It has seen the service when this is entered."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        *(program("prometheus"), f"--config.file={configuration(folder, target, token, interval)}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}", "--log.level=warn"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(bound(command), stdout=log, stderr=log)
    try:
        prometheus = Prometheus(f"http://{address}")
        deadline = time.monotonic() + PATIENCE
        while not prometheus.is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"Prometheus sees no service: {complaint((folder / 'log').read_text())}")
            time.sleep(0.1)
        yield prometheus
    finally:
        stop(process, gently=signal.SIGTERM, firmly=signal.SIGKILL, patience=PATIENCE)
