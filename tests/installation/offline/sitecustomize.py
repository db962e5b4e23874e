"""Loaded by every Python that the tests start: no connection to another machine, and each attempt is written down.

An audit hook sees every use of Python's sockets, whatever library makes it, and cannot be taken off again.
"""

import os
import sys

LOG = "MEDGEN_TESTS_NETWORK_LOG"
_OUTGOING = ("socket.connect", "socket.sendto", "socket.getaddrinfo")


def local(host: object) -> bool:
    """Whether a host is this machine."""
    if host is None or isinstance(host, bytes):
        host = (host or b"").decode(errors="replace")
    return str(host) in ("", "::1", "localhost", "0.0.0.0", "::") or str(host).startswith("127.")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: what leaves this machine is noted and fails."""
    if event not in _OUTGOING:
        return
    if event == "socket.getaddrinfo":
        host = arguments[0]
        import socket

        if local(host) or host == socket.gethostname():
            return
    else:
        address = arguments[1]
        # Sockets between processes of one machine have a path for an address.
        if not isinstance(address, tuple) or local(address[0]):
            return
        host = address[0]
    path = os.environ.get(LOG)
    if path:
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{event} {host}\n")
    raise ConnectionRefusedError(f"the tests are offline: {event} {host}")


sys.addaudithook(refuse)
