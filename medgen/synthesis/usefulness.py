"""What the value study of a run said of its scans, as it goes with them wherever they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medgen.errors import DataError
from medgen.runs.outputs import check_unaltered
from medgen.system import files

HARMFUL = "HARMFUL"
METRICS = "metrics.json"


@dataclass(frozen=True)
class Usefulness:
    """The verdict of a run.

    Attributes:
        word: ``USE``, ``HARMFUL``, ``NO EVIDENCE`` or ``NOT MEASURED``.
        sentence: The verdict in words.
    """

    word: str
    sentence: str

    def require(self, harmful: bool, where: Path) -> None:
        """Refuse scans that made segmentation worse, unless that is wanted.

        Args:
            harmful: Whether they are wanted all the same.
            where: Folder of the run, for the message.

        Raises:
            DataError: If they are HARMFUL and not wanted.

        >>> Usefulness("NO EVIDENCE", "NO EVIDENCE: ...").require(False, Path("run"))
        """
        if self.word == HARMFUL and not harmful:
            raise DataError(
                f"{where}: the value study of this run says {self.sentence} Expected scans that do no harm; add "
                "--harmful to take these all the same"
            )


NOT_MEASURED = Usefulness("NOT MEASURED", "NOT MEASURED: no value study; nothing says that these scans help.")


def read_usefulness(run: Path) -> Usefulness | None:
    """The verdict in the ``metrics.json`` of a finished augment run; None if there is none to read.

    Raises:
        AuditError: If the file is not as the run wrote it: a verdict that anybody may have changed is none.
    """
    path = run / METRICS
    if not path.is_file():
        return None
    check_unaltered(run, METRICS)
    found = files.read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("verdict"), str):
        return None
    return Usefulness(found["verdict"], str(found.get("sentence", "")))


def accepted_scans(run: Path) -> dict[str, int]:
    """Backend → scans that the filter of a finished augment run accepted; empty if its ``metrics.json`` has none."""
    path = run / METRICS
    found = files.read_json(path) if path.is_file() else None
    generators = found.get("generators") if isinstance(found, dict) else None
    if not isinstance(generators, dict):
        return {}
    return {name: int(item["accepted"]) for name, item in generators.items()}
