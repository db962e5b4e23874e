"""``mlflow server`` with accounts and over TLS, by a certificate authority that nobody but the tests knows."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import requests
import trustme
from postgres import free_port

ADMIN, ADMIN_PASSWORD = "admin", "admin-password-1"


class TrackingServer:
    """The server that a group would run: PostgreSQL behind it for numbers, S3 for files, accounts in front.

    Attributes:
        uri: Its address, ``https``.
        authority: PEM file of the certificate authority.
    """

    def __init__(self, folder: Path, database: str, artifacts: str, environment: dict[str, str]) -> None:
        self.folder = folder
        port = free_port()
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(folder / "server.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        settings = folder / "accounts.ini"
        settings.write_text(
            "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{folder / 'accounts.db'}\nadmin_username = {ADMIN}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            # Checking a password takes a quarter of a second, at every call.
            "auth_cache_ttl_seconds = 600\n"
        )
        self.uri = f"https://localhost:{port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1", "--backend-store-uri", database),
            *("--artifacts-destination", artifacts),
            *("--uvicorn-opts", f"--ssl-keyfile {folder / 'server.key'} --ssl-certfile {folder / 'server.pem'}"),
        ]
        own = {
            **os.environ,
            **environment,
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        own.pop("MLFLOW_TRACKING_URI", None)
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=own, cwd=folder
            )
        end = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, "the server did not come up: " + self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        trusted = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2, context=trusted) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def administer(self, call: str, version: int, **content: str) -> None:
        """A call of the administrator's to the part of the server that knows accounts."""
        answer = requests.post(
            f"{self.uri}/api/{version}.0/mlflow/{call}",
            json=content,
            auth=(ADMIN, ADMIN_PASSWORD),
            verify=str(self.authority),
            timeout=10,
        )
        assert answer.ok, answer.text

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
