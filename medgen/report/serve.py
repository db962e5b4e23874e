"""A run's report in a browser: its folder over HTTP, on this machine only, for who knows the address.

Scans are patients' data. So the server listens on the loopback, answers below a path nobody can guess, to requests that
name this machine (a page of another site cannot reach it by a name of its own), gives out files of the run alone and
lists no folder.
"""

from __future__ import annotations

import secrets
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from medgen.errors import DataError

REPORT = "report.html"
LOOPBACK = "127.0.0.1"


class ReportServer(ThreadingHTTPServer):
    """Serves one run; ``serve_forever`` until it is interrupted.

    Attributes:
        folder: The run.
        address: Where its report is, with the secret part of the path.
    """

    # Requests that hang do not keep the program from ending.
    daemon_threads = True

    def __init__(self, run: str | Path, port: int = 0) -> None:
        """Listen for one run.

        Args:
            run: Folder with a ``report.html``, or that file.
            port: Port on the loopback; 0 takes a free one.

        Raises:
            DataError: If there is no report, or the port is taken.
        """
        self.folder = report_of(run).parent.resolve()
        self.secret = secrets.token_urlsafe(16)
        try:
            super().__init__((LOOPBACK, port), partial(_Files, directory=str(self.folder)))
        except OSError as error:
            raise DataError(f"port {port}: cannot be listened on ({error.strerror}); choose another --port") from None
        self.address = f"http://{LOOPBACK}:{self.server_port}/{self.secret}/{REPORT}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while a file is sent is no fault."""


def report_of(run: str | Path) -> Path:
    """The report of a run.

    Raises:
        DataError: If there is none; folders below that have one are named.
    """
    run = Path(run)
    if run.name == REPORT and run.is_file():
        return run
    if not run.is_dir():
        raise DataError(f"{run}: no such folder; expected that of a run, with its {REPORT}; check the path")
    if (run / REPORT).is_file():
        return run / REPORT
    below = sorted(path.parent for path in run.glob(f"*/{REPORT}"))
    if below:
        runs = " or ".join(map(str, below))
        raise DataError(f"{run}: has no {REPORT} itself; expected the folder of one run: {runs}")
    if (run / "config.yaml").is_file():
        raise DataError(f"{run}: this run has no {REPORT} yet; expected a finished run; go on with it by --resume")
    raise DataError(f"{run}: has no {REPORT}; expected the folder of a finished run; check the path")


class _Files(SimpleHTTPRequestHandler):
    """Files of the run, below the secret path."""

    server: ReportServer
    server_version, sys_version = "medgen", ""

    def parse_request(self) -> bool:
        """Refuse what does not come from here by name."""
        if not super().parse_request():
            return False
        names = {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}
        if self.headers.get("Host", "") not in names:
            self.send_error(HTTPStatus.FORBIDDEN, "this machine is asked by another name")
            return False
        return True

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]
        """The file that is asked for, opened; an error where it is not one of the run."""
        parts = unquote(urlsplit(self.path).path, errors="surrogateescape").split("/")
        known = len(parts) > 2 and not parts[0]
        known = known and secrets.compare_digest(parts[1].encode("utf-8", "replace"), self.server.secret.encode())
        if not known or not self._is_of_the_run(parts[2:]):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.path = "/" + self.path.split("/", 2)[2]
        return super().send_head()

    def _is_of_the_run(self, parts: list[str]) -> bool:
        # No hidden file, nothing above, no folder, and no link that leads out of the run.
        if not parts or any(part in ("", "..") or part.startswith(".") or "\0" in part for part in parts):
            return False
        path = self.server.folder.joinpath(*parts)
        return path.is_file() and path.resolve().is_relative_to(self.server.folder)

    def end_headers(self) -> None:
        """Patients' data is not kept by the browser, nor taken for another type than it is."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """No folder is listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed for a request."""
