"""An S3-compatible store in this process, which can be full."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests-secret", "AWS_DEFAULT_REGION": "us-east-1"}


class S3:
    """moto's S3 behind a door that says 507 while :attr:`full` is set.

    Attributes:
        full: Whether uploads are refused.
        url: Its endpoint.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.full = False
        self._store = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.full and environ["REQUEST_METHOD"] in ("PUT", "POST"):
            said = b"<Error><Code>XStorageFull</Code><Message>the store is full</Message></Error>"
            start_response("507 Insufficient Storage", [("Content-Type", "application/xml"), ("Connection", "close")])
            return [said]
        return self._store(environ, start_response)

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )

    def names(self, bucket: str) -> dict[str, int]:
        """Every object of a bucket → its bytes."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def read(self, bucket: str, name: str) -> bytes:
        return bytes(self.client().get_object(Bucket=bucket, Key=name)["Body"].read())

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
