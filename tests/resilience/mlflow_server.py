"""A server that speaks as much of MLflow's REST interface as a tracked run needs, and fails on demand."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medgen.errors import DataError
from medgen.runs import journal, tracking

_API, _ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"
# What is wrong with one call: None for nothing, else see Server.fault.
Fault = Callable[[str], str | None]


class Server:
    """The store; what it was told stays when it is stopped and started again on the same port.

    Attributes:
        fault: Called with the endpoint of every call, such as ``runs/log-batch``: ``500`` answers an error and stores
            nothing, ``hang`` neither stores nor answers, ``slow`` does both late, ``drop`` stores and closes the
            connection, ``stored, hang`` stores and never answers.
        runs: Id → its information, tags and parameters.
        points: Every metric of every batch as it arrived: (run, JSON text of the point).
        artifacts: Path → content of every upload.
        calls: Endpoint of every call.
        delay: Seconds of ``slow``.
        asked: Path of the present call.
    """

    def __init__(self) -> None:
        self.fault: Fault = lambda _: None
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.points: list[tuple[str, str]] = []
        self.artifacts: dict[str, list[bytes]] = {}
        self.calls: list[str] = []
        self.delay = 0.05
        self.asked = ""
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self.start()
        assert self._http is not None
        self.port = self._http.server_address[1]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._release.clear()
        handler = type("Handler", (_Handler,), {"store": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", getattr(self, "port", 0)), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Connections are refused from now on, and calls that hang are cut off."""
        assert self._http is not None
        self._release.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, Any]] | None:
        """Status and content; None to close the connection without a word."""
        if self._release.is_set():
            # Stopped; connections that were kept open end here.
            return None
        place = urlsplit(handler.path)
        endpoint = "artifacts" if place.path.startswith(_ARTIFACTS) else place.path.removeprefix(_API)
        with self._lock:
            self.calls.append(endpoint)
            self.asked = place.path
            fault = self.fault(endpoint)
        if fault == "500":
            return 500, {"error_code": "INTERNAL_ERROR", "message": "out of order"}
        if fault == "slow":
            time.sleep(self.delay)
        if fault != "hang":
            with self._lock:
                if endpoint == "artifacts":
                    self.artifacts.setdefault(place.path.removeprefix(_ARTIFACTS), []).append(body)
                    result: tuple[int, dict[str, Any]] = (200, {})
                else:
                    query = {name: values[-1] for name, values in parse_qs(place.query).items()}
                    result = self._apply(endpoint, query | (json.loads(body) if body else {}))
        if fault in ("hang", "stored, hang"):
            self._release.wait(60)
        return None if fault in ("hang", "stored, hang", "drop") else result

    def _apply(self, endpoint: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs.get(asked.get("run_id") or asked.get("run_uuid") or "")
        if endpoint == "experiments/get-by-name" and asked["experiment_name"] in self.experiments:
            name = asked["experiment_name"]
            found = {"experiment_id": self.experiments[name], "name": name, "lifecycle_stage": "active"}
            return 200, {"experiment": found}
        if endpoint == "experiments/create":
            return 200, {"experiment_id": self.experiments.setdefault(asked["name"], "1")}
        if endpoint == "runs/create":
            uid = uuid.uuid4().hex
            where = f"mlflow-artifacts:/1/{uid}/artifacts"
            info = {"run_id": uid, "run_uuid": uid, "experiment_id": "1", "status": "RUNNING", "artifact_uri": where}
            info |= {"start_time": asked["start_time"], "lifecycle_stage": "active"}
            self.runs[uid] = {"info": info, "tags": {tag["key"]: tag["value"] for tag in asked["tags"]}, "params": {}}
            return 200, {"run": _told(self.runs[uid])}
        if endpoint == "runs/search":
            wanted = re.fullmatch(r"tags\.`(.*)` = '(.*)'", asked["filter"])
            assert wanted is not None
            runs = [_told(own) for own in self.runs.values() if own["tags"].get(wanted[1]) == wanted[2]]
            return 200, {"runs": runs}
        if run is None:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing"}
        if endpoint == "runs/log-batch":
            uid = run["info"]["run_id"]
            self.points += [(uid, json.dumps(point, sort_keys=True)) for point in asked.get("metrics", [])]
            run["params"] |= {item["key"]: item["value"] for item in asked.get("params", [])}
            run["tags"] |= {item["key"]: item["value"] for item in asked.get("tags", [])}
        elif endpoint == "runs/update":
            run["info"] |= {name: asked[name] for name in ("status", "end_time") if name in asked}
        elif endpoint != "runs/get":
            raise AssertionError(f"unexpected call {endpoint}")
        return 200, {"run": _told(run), "run_info": run["info"]}


class _Handler(BaseHTTPRequestHandler):
    store: Server
    protocol_version = "HTTP/1.1"

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            raise AssertionError("a chunked body")
        answer = self.store.answer(self, body)
        if answer is None:
            self.close_connection = True
            return
        content = json.dumps(answer[1]).encode()
        try:
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = _do

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _told(run: dict[str, Any]) -> dict[str, Any]:
    data = {kind: [{"key": key, "value": value} for key, value in run[kind].items()] for kind in ("tags", "params")}
    return {"info": run["info"], "data": data}


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def attempt(out: Path) -> bool:
    try:
        tracking.sync(out)
    except DataError:
        return False
    return True


def sent(out: Path) -> None:
    """Sync until the store has all: a call that failed is made again, as a user would."""

    def done() -> bool:
        if not attempt(out):
            return False
        if not (out / journal.CURSOR).is_file():
            return False
        cursor = json.loads((out / journal.CURSOR).read_text())
        return cursor["offset"] == (out / journal.NAME).stat().st_size

    until(done, "sync")
    assert tracking.sync(out) == 0


def impatient(monkeypatch: Any, uri: str, *, timeout: int, pause: float, longest: float, close: float) -> None:
    """Track to a server, and wait for it as long as a test can.

    Args:
        monkeypatch: Of the test.
        uri: Of the server.
        timeout: Seconds that a call may take.
        pause: Seconds between two looks at the journal,
        longest: and at most between two attempts that failed.
        close: Seconds that the end of a run waits.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking, "_PAUSE", pause)
    monkeypatch.setattr(tracking, "_LONGEST_PAUSE", longest)
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", close)
