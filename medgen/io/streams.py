"""Bytes of a file, taken out of gzip where it is packed, and never more of them than were asked for.

A few kilobytes of gzip can hold gigabytes. A reader that knows from a header how much there must be asks for that much,
then for the end: what is too long, too short or damaged is noticed without ever being held in memory.
"""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from medgen.faults import FaultyDataError, fail
from medgen.io import deflate
from medgen.system.files import open_regular
from medgen.system.memory import available_memory

GZIP_MAGIC = b"\x1f\x8b"
# A deflate stream holds at most 258 bytes in 2 bits.
LARGEST_RATIO = 1032
# Images of this size in so little space are empty; label maps that large are rare, and can be stored unpacked.
_BOMB_BYTES, _BOMB_RATIO = 1 << 29, 200
_IN, _OUT = 1 << 16, 1 << 20
# Files of this size are unpacked in one piece where the unpacker can do that without a second copy of the result.
_WHOLE = 1 << 28
_GIB = 1 << 30
_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_AGAIN = "copy or download it again"


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; pipes, sockets and devices, which may never end, are refused without waiting.

    Raises:
        FaultyDataError: If there is no such file, it is of another kind, or it cannot be read.
    """
    try:
        _regular(path, path.stat())
        return open_regular(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError | ValueError) -> FaultyDataError:
    """The error for a path that the system refuses."""
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return fail(path, "a link to a file that is not there", "a file", "restore the file, or remove the link")
        return fail(path, "no such file or folder", "a file", "check the path")
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return fail(path, f"cannot be read ({reason})", "a readable file", "check the path and its permissions")


def _regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise fail(path, kind, "a regular file", "copy the data into a file")


class Stream:
    """The content of a regular file in order, unpacked if it starts as gzip does; a context manager.

    Args:
        path: The file.
        start: Bytes at its start to leave out.
        packing: ``auto`` (gzip where it starts as such), ``none``, ``gzip`` or ``zlib``.

    Attributes:
        size: Bytes on disk, from ``start`` on.
        packed: Whether it is unpacked. gzip files may have several members; zeros after the last one are padding.

    Raises:
        FaultyDataError: From the start and from every method: if the file cannot be read, or the gzip stream is
            damaged, ends too early, or is followed by something else.
    """

    def __init__(self, path: Path, start: int = 0, packing: str = "auto") -> None:
        self.path = path
        self._file = open_file(path)
        self.size = max(os.fstat(self._file.fileno()).st_size - start, 0)
        self._kind = "zlib" if packing == "zlib" else "gzip"
        self._bits = zlib.MAX_WBITS | (0 if packing == "zlib" else 16)
        self._members = 0
        self._inflater: Any = None
        self._input = b""
        self._padded = False
        self.packed = False
        try:
            self._file.seek(start)
            self._input = self._raw(_IN)
        except BaseException:
            self._file.close()
            raise
        self.packed = packing in ("gzip", "zlib") or (packing == "auto" and self._input.startswith(GZIP_MAGIC))

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer where the content ends. For headers: what is read is kept once more."""
        parts: list[bytes] = []
        while size > 0 and (part := self._next(min(size, _OUT))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def fill(self, buffer: memoryview) -> int:
        """Fill a buffer of bytes; returns how many there were."""
        done = 0
        while done < len(buffer) and (part := self._next(min(len(buffer) - done, _OUT))):
            buffer[done : done + len(part)] = part
            done += len(part)
        return done

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes in one piece of memory, which nothing else uses; fewer where the content ends."""
        part = b""
        if self.packed and self.size <= _WHOLE and deflate.isal() is not None:
            self._input += self._raw(self.size)
            part = self._next(size)
            if len(part) == size:
                return memoryview(part)
        buffer = np.empty(size, dtype=np.uint8).data
        buffer[: len(part)] = part
        return buffer[: len(part) + self.fill(buffer[len(part) :])]

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes without keeping them; returns how many there were."""
        done = 0
        while done < size and (part := self._next(min(size - done, _OUT))):
            done += len(part)
        return done

    def finish(self, expected: str) -> None:
        """Demand that the content ends here, checksum included.

        Args:
            expected: What should have been all, for the message.
        """
        if self._next(1):
            raise fail(self.path, "more bytes than the header says", expected, _AGAIN)

    def check_size(self, size: int, what: str = "voxels") -> None:
        """Refuse, before anything of it is read, content of ``size`` bytes that the file cannot or should not hold."""
        if not self.packed:
            if size > self.size:
                raise fail(self.path, f"truncated: {self.size} of {size} bytes", "a complete file", _AGAIN)
            if size < self.size:
                found = f"{self.size - size} bytes behind the last of the {what}"
                raise fail(self.path, found, f"{size} bytes as the header says", _AGAIN)
            return
        check_ratio(self.path, size, self.size)

    def _raw(self, size: int) -> bytes:
        try:
            return self._file.read(size) or b""
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _next(self, limit: int) -> bytes:
        """Some of the content that follows, at most ``limit`` bytes; none at its end."""
        if not self.packed:
            part, self._input = self._input[:limit], self._input[limit:]
            return part or self._raw(limit)
        while True:
            source = self._input or self._raw(_IN)
            if self._inflater is None:
                if self._members:
                    # Tapes and some copying tools fill up with zeros.
                    rest = source.lstrip(b"\0")
                    self._padded = self._padded or rest != source
                    if not rest:
                        self._input = b""
                        if not source:
                            return b""
                        continue
                    if self._padded or self._kind == "zlib" or not GZIP_MAGIC.startswith(rest[:2]):
                        raise self._junk()
                plain = self._kind == "gzip" and not deflate.usual_header(source)
                self._inflater = deflate.inflater(self._bits, plain)
            try:
                part = self._inflater.decompress(source, limit)
            except deflate.damage() as error:
                if self._members:
                    raise self._junk() from None
                reason = deflate.reason(error)
                raise fail(self.path, f"damaged {self._kind} stream ({reason})", "a complete file", _AGAIN) from None
            self._input = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._input = self._inflater.unused_data
                self._inflater, self._members = None, self._members + 1
            elif not part and not source:
                raise fail(self.path, f"the {self._kind} stream ends too early", "a complete file", _AGAIN)
            if part:
                return part

    def _junk(self) -> FaultyDataError:
        return fail(
            self.path, f"damaged bytes or other data behind the {self._kind} stream", "nothing behind it", _AGAIN
        )


def check_ratio(path: Path, size: int, packed: int) -> None:
    """Refuse ``size`` bytes said to be in ``packed`` bytes of deflate where that cannot be, or is next to nothing."""
    if size > LARGEST_RATIO * packed + _IN:
        found = f"truncated: {packed} packed bytes cannot hold the {size} bytes that the header says"
        raise fail(path, found, "a complete file", _AGAIN)
    if size >= _BOMB_BYTES and size > _BOMB_RATIO * packed:
        found = f"{size / _GIB:.1f} GiB packed into {packed} bytes, as a compression bomb is"
        action = "check where it comes from; a label map that is really that empty and large can be stored unpacked"
        raise fail(path, found, f"at most {_BOMB_RATIO} times less", action)


def check_memory(path: Path, size: int) -> None:
    """Refuse an image that takes ``size`` bytes in memory where this machine has fewer.

    Raises:
        FaultyDataError: With the size, and what is free.
    """
    if size < 1 << 26:
        return
    free = available_memory()
    if size / _GIB > free:
        raise too_large(path, size, free)


def too_large(path: Path, size: int, free: float | None = None) -> FaultyDataError:
    """The error for an image that does not fit in memory."""
    room = "what this process may use" if free is None else f"the {free:.1f} GiB that are free"
    action = "use a machine with more memory, or resample the scan to a coarser grid"
    return fail(path, f"an image that takes {size / _GIB:.1f} GiB in memory", f"at most {room}", action)
