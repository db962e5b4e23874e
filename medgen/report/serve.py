"""A run's report in a browser: its folder over HTTP, on this machine only, for who knows the address.

Scans are patients' data. So the server listens on the loopback, answers below a path nobody can guess, to requests that
name this machine (a page of another site cannot reach it by a name of its own), gives out files of the run alone.
Folders that the report links to are listed, with what may be given out.
"""

from __future__ import annotations

import secrets
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

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
        own = parts[2:-1] if parts[-1] == "" and len(parts) > 3 else parts[2:]
        path = self._of_the_run(own) if known else None
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        if path.is_dir():
            return self._listed(path, own)
        self.path = "/" + self.path.split("/", 2)[2]
        return super().send_head()

    def _of_the_run(self, parts: list[str]) -> Path | None:
        # No hidden file, nothing above, not the run itself, and no link that leads out of it.
        if not parts or any(part in ("", "..") or part.startswith(".") or "\0" in part for part in parts):
            return None
        path = self.server.folder.joinpath(*parts)
        there = path.exists() and path.resolve().is_relative_to(self.server.folder)
        return path if there else None

    def _listed(self, folder: Path, parts: list[str]) -> IO[bytes]:
        """A page with what a folder of the run holds."""
        names = [name for path in sorted(folder.iterdir()) if self._of_the_run([*parts, name := path.name])]
        base = "/".join(["", self.server.secret, *map(quote, parts)])
        items = "".join(f'<li><a href="{base}/{quote(name)}">{escape(name)}</a></li>' for name in names)
        title = escape("/".join(parts))
        page = f'<!DOCTYPE html><meta charset="utf-8"><title>{title}</title><h1>{title}</h1><ul>{items}</ul>'.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        return BytesIO(page)

    def end_headers(self) -> None:
        """Patients' data is not kept by the browser, nor taken for another type than it is."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Folders are listed by :meth:`_listed` alone."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed for a request."""
