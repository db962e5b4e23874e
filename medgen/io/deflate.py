"""Deflate by Intel's ISA-L where the package isal is installed (the extra ``fast``), else by zlib.

Both give and take standard gzip. ISA-L unpacks about twice as fast and packs four to fifteen times as fast at about the
same size, but its bytes are not zlib's: files are equal byte for byte only where both were written with it, or both
without. A run's ``environment.json`` names every installed package, and a replay compares what files hold.
"""

from __future__ import annotations

import re
import zlib
from functools import cache
from types import ModuleType
from typing import Any

# Measured on heads at 1 mm (int16 and float32, stripped and noisy) in units of zlib's level 1, which nibabel writes:
#   zlib 1    size 1            time 1
#   isal 0    size 1.19 - 1.43  time 0.12 - 0.24
#   isal 1    size 0.97 - 1.09  time 0.06 - 0.28
#   isal 2    size 0.95 - 1.02  time 0.06 - 0.25   <- never larger by 5 %, and as fast as 1
#   isal 3    size 0.97 - 1.04  time 0.17 - 0.83
# zlib-ng's levels of the same size take 0.6 of zlib's time, libdeflate's 0.3 to 1.0.
_ISAL_LEVEL, _ZLIB_LEVEL = 2, 1
_GZIP = zlib.MAX_WBITS | 16
# A gzip header's fixed part in bytes, and the bits of its fourth byte.
_FIXED = 10
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


@cache
def isal() -> ModuleType | None:
    """ISA-L in zlib's words, or None where it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    module: ModuleType = isal_zlib
    return module


def packed(content: Any) -> bytes:
    """Bytes-like content as one gzip member, without a time or a file name: equal content gives equal bytes."""
    module, level = (zlib, _ZLIB_LEVEL) if (fast := isal()) is None else (fast, _ISAL_LEVEL)
    packer = module.compressobj(level, zlib.DEFLATED, _GZIP)
    return bytes(packer.compress(content) + packer.flush())


def inflater(bits: int, plain: bool = False) -> Any:
    """A new unpacker with the methods and attributes of :func:`zlib.decompressobj`.

    Args:
        bits: Window size and container, as zlib's ``wbits``.
        plain: By zlib in any case.
    """
    module = zlib if plain else isal() or zlib
    return module.decompressobj(bits)


def usual_header(source: bytes) -> bool:
    """Whether a gzip member's header (RFC 1952) lies whole in its first bytes, and uses no reserved bit.

    ISA-L loses its place in a header with a name that comes in several pieces, and accepts reserved bits.

    >>> usual_header(packed(b"")), usual_header(packed(b"")[:9])
    (True, False)
    """
    if len(source) < _FIXED or source[3] & _RESERVED:
        return False
    flags, end = source[3], _FIXED
    if flags & _EXTRA:
        end += 2 + int.from_bytes(source[end : end + 2], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = source.find(b"\0", end) + 1 or len(source) + 1
    return end + (2 if flags & _HEADER_CRC else 0) <= len(source)


def reason(error: Exception) -> str:
    """Why bytes are damaged, in the words of whoever unpacked them, without a number and the capital letter."""
    text = re.sub(r"^Error -?\d+ ", "", str(error).rpartition(": ")[2])
    return text[:1].lower() + text[1:]


def damage() -> tuple[type[Exception], ...]:
    """What an unpacker raises on damaged bytes."""
    return (zlib.error,) if (fast := isal()) is None else (zlib.error, fast.error)
