"""Tables that people keep beside scans: CSV and TSV files, as spreadsheets write them."""

from __future__ import annotations

import csv
import re
from io import StringIO
from pathlib import Path

from medgen.errors import DataError
from medgen.faults import FaultyDataError, fail
from medgen.system import files

_LARGEST_TABLE = 64 << 20
_NAMES = {",": "CSV", ";": "CSV", "\t": "TSV"}
# Spreadsheets of countries with decimal commas part cells with semicolons.
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, cells by column) of a CSV or TSV file; empty lines are left out.

    A CSV file whose header has semicolons or tabs and no comma is read with these, and its decimal commas as points;
    a first line ``sep=;`` says so, too.

    Raises:
        FaultyDataError: If it is no such UTF-8 file, a line has another number of cells, or a column occurs twice.
    """
    expected, action = f"a UTF-8 {_NAMES[delimiter]} file with a header", "check the file"
    try:
        text = files.read_text(path, _LARGEST_TABLE).removeprefix("\ufeff")
        first, _, rest = text.partition("\n")
        skipped = 0
        if match := re.fullmatch(r"sep=([,;\t])\r?", first):
            delimiter, text, skipped = match[1], rest, 1
        elif delimiter == ",":
            delimiter = _delimiter(first)
        # Line ends inside of quotes stay as they are.
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for cells in reader:
            line = reader.line_num + skipped
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                found, wanted = f"{len(cells)} cells", f"{len(header)} as in the header"
                raise fail(f"{path}:{line}", found, wanted, "correct the line")
            values = [cell.strip() for cell in cells]
            if wrong := next((cell for cell in values if not _plain_cell(cell)), None):
                raise fail(f"{path}:{line}", f"the cell {wrong[:60]!r}", "plain text", "correct the line")
            plain = (files.unescaped(cell) for cell in values)
            if delimiter == ";":
                plain = (cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in plain)
            rows.append((line, dict(zip(header, plain, strict=True))))
    except csv.Error as error:
        raise fail(path, f"cannot be read ({error})", expected, action) from None
    except FaultyDataError:
        raise
    except DataError as error:
        raise fail(path, str(error).removeprefix(f"{path}: "), expected, action) from None
    if len(set(header)) != len(header):
        raise fail(path, f"columns {', '.join(header)}", "each column once", "correct the header line")
    return header, rows


def _delimiter(header: str) -> str:
    """What parts the cells of a table whose suffix says commas.

    >>> _delimiter("id;subject;image"), _delimiter("id,image")
    (';', ',')
    """
    return next((sign for sign in (";", "\t") if sign in header and "," not in header), ",")


def _plain_cell(cell: str) -> bool:
    """Whether a cell is text alone: no control characters, and nothing that a spreadsheet would run as a formula."""
    if not cell.isprintable():
        return False
    return not cell or cell[0] not in "=+-@" or not (cell[0] == "=" or any(sign in cell for sign in "(|!"))
