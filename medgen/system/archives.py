"""Arrays from ``.npz`` files that others may have made: nothing pickled, and nothing larger than allowed."""

from __future__ import annotations

import math
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.system.files import open_regular

# Archives of ours hold dozens of arrays, and their headers a hundred bytes.
_MEMBERS = 10_000


def read_npz(path: str | Path, names: Sequence[str], limit: int) -> dict[str, NDArray[Any]]:
    """Read some arrays of an ``.npz`` file.

    An array is unpacked only after its header has been compared with the size of its member, and the sizes of all
    arrays asked for with the limit.

    Args:
        path: The file.
        names: Arrays to read, without ``.npy``.
        limit: Most bytes that they may take together.

    Raises:
        FileNotFoundError: If there is no file.
        DataError: If it is damaged, no ``.npz``, lacks an array, holds pickled objects, or an array is too large.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            present = {member.filename: member for member in members}
            if len(members) > _MEMBERS or len(present) != len(members):
                raise DataError(f"{path}: too many arrays, or two of one name; expected an .npz file that NumPy wrote")
            if any(_leaves(member) for member in members):
                raise DataError(f"{path}: holds a link or a path out of its folder; expected an .npz file of arrays")
            missing = [name for name in names if f"{name}.npy" not in present]
            if missing:
                found = ", ".join(sorted(name.removesuffix(".npy")[:40] for name in present)[:10])
                raise DataError(f"{path}: no array {missing[0]!r}; it holds {found or 'none'}")
            size = sum(present[f"{name}.npy"].file_size for name in names)
            if size > limit:
                raise DataError(f"{path}: its arrays take {size} bytes unpacked, at most {limit} are accepted")
            return {name: _array(archive, present[f"{name}.npy"], path) for name in names}
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        MemoryError,
        RuntimeError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path}: cannot be read as .npz without pickled objects ({error.__class__.__name__}); make it again"
        ) from None


def _leaves(member: zipfile.ZipInfo) -> bool:
    """Whether a member, unpacked, would lie elsewhere; nothing here unpacks to files, but others do."""
    name = PurePosixPath(member.filename.replace("\\", "/"))
    return name.is_absolute() or ".." in name.parts or stat.S_ISLNK(member.external_attr >> 16)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str | Path) -> NDArray[Any]:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError("an unknown version")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise DataError(
                f"{path}: {member.filename} cannot be read without pickled objects, and those are never read"
            )
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError("a header that does not fit its array")
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        # The checksum is compared at the end of the member.
        if file.read(1):
            raise ValueError("bytes behind an array")
        return array
