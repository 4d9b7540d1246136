"""The Debian packages that `make test-all` needs and `make test` does not.

`python -m tests.support.programs check` names those that are missing, `install` installs them with apt-get.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.browser import chromium

POLICY = Path("/usr/sbin/policy-rc.d")


def on_path(name: str) -> Callable[[], object]:
    return lambda: shutil.which(name)


# By Debian package: a function that tells whether its program is installed.
PACKAGES: dict[str, Callable[[], object]] = {
    "chromium": chromium.find,
    "curl": on_path("curl"),
    "faketime": lambda: any(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")),
    "git": on_path("git"),
    "nginx-light": Path("/usr/sbin/nginx").exists,
    "nodejs": on_path("node"),
    "openssl": on_path("openssl"),
    "prometheus": on_path("prometheus"),
    "rabbitmq-server": Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists,
    "redis-server": on_path("redis-server"),
    "wrk": on_path("wrk"),
}


def missing() -> list[str]:
    return [package for package, is_there in PACKAGES.items() if not is_there()]


def check() -> None:
    if packages := missing():
        sys.exit(
            f"make test-all needs these packages: {' '.join(packages)}. `make test-packages` installs them."
        )


def install() -> None:
    if not (packages := missing()):
        return
    apt = ["apt-get", "--yes", "--no-install-recommends"]
    if os.geteuid() != 0:
        sys.exit(f"As root: apt-get install {' '.join(packages)}")
    with servers_not_started():
        subprocess.run([*apt, "update"], check=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "install", *packages], check=True, env=environment)


@contextmanager
def servers_not_started() -> Iterator[None]:
    """Keep Debian from starting the installed servers: the tests start their own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    {"check": check, "install": install}[sys.argv[1]]()
