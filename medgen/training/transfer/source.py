"""A trained model that another training starts from: which one it is, and from whom it has learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medgen.data.cases import Manifest
from medgen.errors import AuditError, ConfigError
from medgen.models.artifact import TrainedModel
from medgen.models.base import ScanModel
from medgen.training.config import InitConfig

# Key of an artifact's plain data.
LINEAGE = "lineage"


@dataclass(frozen=True)
class Lineage:
    """From whom a model has learnt, itself or through the model that it started from.

    >>> first = Lineage(frozenset({"scan-1"}), frozenset({"ann"}), frozenset())
    >>> Lineage.of(first.record()) == first, (first + Lineage(frozenset({"scan-2"}))).record()["cases"]
    (True, ['scan-1', 'scan-2'])

    Attributes:
        cases: Ids of the scans.
        subjects: Whom they show.
        files: SHA-256 of the image files, as far as they are known.
    """

    cases: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    @classmethod
    def of(cls, record: Any) -> Lineage | None:
        """From what :meth:`record` gave; None if it is no such thing."""
        if not isinstance(record, Mapping) or not all(isinstance(record.get(key), list) for key in _FIELDS):
            return None
        return cls(*(frozenset(map(str, record[key])) for key in _FIELDS))

    @classmethod
    def of_cases(cls, manifest: Manifest, cases: Iterable[str]) -> Lineage:
        """Of these cases of a manifest with hashes."""
        part = manifest.subset(list(cases))
        files = frozenset().union(*(image_hashes(manifest, case.id) for case in part))
        return cls(frozenset(case.id for case in part), frozenset(part.subjects), files)

    def __add__(self, other: Lineage) -> Lineage:
        return Lineage(self.cases | other.cases, self.subjects | other.subjects, self.files | other.files)

    def record(self) -> dict[str, list[str]]:
        """As plain data, sorted."""
        return {key: sorted(getattr(self, key)) for key in _FIELDS}


_FIELDS = ("cases", "subjects", "files")


def recorded(lineage: Lineage | None) -> dict[str, Any]:
    """What an artifact's plain data has of a lineage, under :data:`LINEAGE`."""
    return {LINEAGE: None if lineage is None else lineage.record()}


@dataclass(frozen=True, eq=False)
class Source:
    """The model that a training starts from.

    Attributes:
        model: In evaluation mode, on the CPU.
        sha256: Digest of its artifact.
        lineage: From whom it has learnt; None if the artifact does not say.
        spacing: Voxel size in mm of the grid that it has learnt on.
    """

    model: ScanModel
    sha256: str
    lineage: Lineage | None
    spacing: tuple[float, float, float]


def read_source(init: InitConfig, family: str) -> Source:
    """Read the artifact, check its hashes, and take its first model of a family.

    Raises:
        ArtifactError: If it is missing, incomplete or altered.
        ConfigError: If no model in it is of the family.
    """
    artifact = TrainedModel.load(init.artifact)
    model = _of_family(artifact, init, family)
    return Source(model, artifact.sha256, Lineage.of(artifact.meta.get(LINEAGE)), artifact.preprocess.spacing)


def read_lineage(init: InitConfig, family: str = "") -> Lineage | None:
    """From whom a source has learnt, once its hashes are checked; None if it does not say.

    Args:
        init: The setting that names it.
        family: What it has to hold a model of, where that is known.

    Raises:
        ArtifactError: If it is missing, incomplete or altered.
        ConfigError: If no model in it is of the family.
    """
    artifact = TrainedModel.load(init.artifact)
    if family:
        _of_family(artifact, init, family)
    return Lineage.of(artifact.meta.get(LINEAGE))


def _of_family(artifact: TrainedModel, init: InitConfig, family: str) -> ScanModel:
    model = next((model for model in artifact.models if model.family == family), None)
    if model is None:
        there = ", ".join(sorted({model.family for model in artifact.models}))
        raise ConfigError(
            f"{init.artifact}: holds a model of the family {there}, and {family} is to be trained; a training starts "
            "from a model of its own family"
        )
    return model


def refuse_held_out(known: Lineage | None, init: InitConfig, held_out: Manifest, where: str) -> None:
    """Refuse a source that has learnt from whom this run holds out.

    A file counts by its content, a case and a subject by their names, unless ``other_people`` says that equal names are
    of others. A source that does not say from whom it has learnt is refused where anybody is held out.

    Args:
        known: From whom the source has learnt.
        init: The setting that names it.
        held_out: The cases, with hashes.
        where: What they are held out for, such as ``validation``.

    Raises:
        AuditError: Naming the first such case.
    """
    if not len(held_out):
        return
    if known is None:
        if not init.other_people:
            raise AuditError(
                f"{init.artifact}: does not say from whom it has learnt, and {len(held_out)} scans are held out for "
                f"{where}; set init.other_people=true if you know that it was from none of them"
            )
        return
    for case in held_out:
        if image_hashes(held_out, case.id) & known.files:
            raise AuditError(
                f"{init.artifact}: has learnt from the very file of case {case.id}, which is held out for {where}; "
                "start from a model that has not seen it"
            )
        if not init.other_people and (case.id in known.cases or case.subject in known.subjects):
            raise AuditError(
                f"{init.artifact}: has learnt from subject {case.subject} (case {case.id}), who is held out for "
                f"{where}; start from another model, or set init.other_people=true if it is another person of that name"
            )


def image_hashes(manifest: Manifest, case: str) -> frozenset[str]:
    """SHA-256 of the image files of a case; none where they are not known."""
    images, _ = manifest.hashes_of(next(own for own in manifest if own.id == case))
    return frozenset(value for value in images.split(";") if value)
