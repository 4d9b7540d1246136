"""A Prometheus process with the configuration and rules of deploy/observability."""

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
from local.processes import ending_with_parent, error_line, stop

FOLDER: Final = ROOT / "deploy" / "observability"
TIMEOUT_SECONDS: Final = 60.0


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise LocalError(f"the program {name} is missing: apt-get install prometheus")
    return found


class Prometheus:
    """A client of Prometheus's HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query_api(self, endpoint: str, **parameters: Any) -> Any:
        """Query the API. Raises OSError if there is no response or an error."""
        url = f"{self.address}/api/v1/{endpoint}?{urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        """Return the current value of a query, or None unless the result has exactly one."""
        result = self.query_api("query", query=query)["result"]
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def is_up(self) -> bool:
        try:
            return bool(self.value("sum(up)"))
        except OSError:
            return False


def configuration(folder: Path, target: str, token: str, interval: str) -> Path:
    """Write compose's configuration with another target, token file and interval."""
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    settings["rule_files"] = [str(FOLDER / name) for name in settings["rule_files"]]
    (job,) = settings["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["authorization"]["credentials_file"] = str(folder / "token")
    (folder / "token").write_text(token)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


@contextmanager
def running(folder: Path, target: str, token: str, interval: str = "1s") -> Iterator[Prometheus]:
    """Run Prometheus; the block starts after its first successful scrape."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        *(program("prometheus"), f"--config.file={configuration(folder, target, token, interval)}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}", "--log.level=warn"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(ending_with_parent(command), stdout=log, stderr=log)
    try:
        prometheus = Prometheus(f"http://{address}")
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not prometheus.is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"Prometheus sees no service: {error_line((folder / 'log').read_text())}")
            time.sleep(0.1)
        yield prometheus
    finally:
        stop(process, graceful=signal.SIGTERM, forced=signal.SIGKILL, timeout_seconds=TIMEOUT_SECONDS)
