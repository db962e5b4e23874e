"""The tests themselves: nothing in them, and no process they start, reaches another machine."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

# Reserved for documentation (RFC 5737): never anybody's.
ELSEWHERE = "192.0.2.1"


def test_connections_to_other_machines_fail_and_are_noted(network_log: Path) -> None:
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="offline"):
        client.connect((ELSEWHERE, 80))
    with pytest.raises(ConnectionRefusedError, match="offline"):
        socket.getaddrinfo("example.org", 80)
    assert network_log.read_text().split() == ["socket.connect", ELSEWHERE, "socket.getaddrinfo", "example.org"]
    network_log.unlink()


def test_neither_does_a_process_that_swallows_the_error(network_log: Path) -> None:
    code = f"import socket\ntry: socket.create_connection(({ELSEWHERE!r}, 80))\nexcept OSError: pass"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert ELSEWHERE in network_log.read_text()
    network_log.unlink()


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
