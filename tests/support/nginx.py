"""Debian's nginx on loopback, with deploy/nginx/walletsvc.conf; only ports and paths are changed."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.postgres import free_port
from local.processes import ending_with_parent

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx" / "walletsvc.conf"
MAIN = """
daemon off;
{user}
worker_processes 2;
worker_rlimit_nofile 8192;
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/walletsvc.conf;
}}
"""


class Nginx:
    def __init__(self, folder: Path, upstream: int) -> None:
        self._folder = folder
        self.plain, self.port = free_port(), free_port()
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            + ["-keyout", str(key), "-out", str(self.certificate), "-days", "2"]
            + ["-subj", "/CN=wallets.example.com", "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        config = CONFIG.read_text()
        for theirs, ours in {
            "listen 80;": f"listen 127.0.0.1:{self.plain};",
            "listen [::]:80;": "",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "listen [::]:443 ssl;": "",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
            "/etc/ssl/certs/wallets.example.com.pem": str(self.certificate),
            "/etc/ssl/private/wallets.example.com.key": str(key),
        }.items():
            assert config.count(theirs) == 1, theirs
            config = config.replace(theirs, ours)
        (folder / "walletsvc.conf").write_text(config)
        user = "user root;" if os.geteuid() == 0 else ""  # the owner of the folder
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))

    @contextmanager
    def running(self) -> Iterator["Nginx"]:
        with (self._folder / "output").open("ab") as output:
            process = subprocess.Popen(
                ending_with_parent(["/usr/sbin/nginx", "-c", str(self._folder / "nginx.conf")], "TERM"),
                stdout=output,
                stderr=output,
            )
        try:
            deadline = time.monotonic() + 30
            while not (self._folder / "pid").exists():
                assert process.poll() is None, (self._folder / "output").read_text()
                assert time.monotonic() < deadline, "nginx does not start"
                time.sleep(0.05)
            yield self
        finally:
            process.terminate()
            process.wait(30)
