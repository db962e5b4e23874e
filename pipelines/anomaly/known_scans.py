"""Which scans a detector knows: those that it was developed and calibrated on, moved to another site by, or learnt of.

Of such a scan it expects what it has seen: its p-values compare it with itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.data.cases import Manifest
from medgen.errors import AuditError
from medgen.models.artifact import TrainedModel
from medgen.training.transfer.source import LINEAGE, Lineage, image_hashes

# Known scans that are named with what each is.
_EACH = 3


def known_scans(artifact: TrainedModel) -> dict[str, str]:
    """SHA-256 of every image file that the model knows → which scan it is, and what for.

    >>> from medgen.preprocessing.recipe import Preprocess
    >>> meta = {"inputs": {"anna": {"image": "aa;bb"}}, "adapted": [{"inputs": {"ben": {"image": "cc"}}}]}
    >>> recipe = Preprocess(shape=(8, 8, 8), spacing=(1, 1, 1))
    >>> list(known_scans(TrainedModel([], recipe, meta=meta)).values())[1:]
    ['anna of the scans that the model was made from', 'ben of the scans that the model was adapted with']
    """
    lineage = Lineage.of(artifact.meta.get(LINEAGE)) or Lineage()
    found = dict.fromkeys(sorted(lineage.files), "one of the scans that the model has learnt from")
    found |= _named(artifact.meta.get("inputs"), "made from")
    for step in artifact.meta.get("adapted") or ():
        found |= _named(step.get("inputs"), "adapted with")
    return found


def learnt_words(read: Mapping[str, Mapping[str, str]], known: Mapping[str, str]) -> list[str]:
    """A sentence for each scan to score that the model knows, or one for all where they are many.

    Args:
        read: SHA-256 of the files of every scan, by what they are.
        known: The scans that it knows, as :func:`known_scans` names them.
    """
    found = {name: known[digest] for name, own in read.items() for digest in own.values() if digest in known}
    if len(found) > _EACH:
        first = ", ".join(list(found)[:_EACH])
        return [
            f"{len(found)} of {len(read)} scans are known to the model ({first} and {len(found) - _EACH} more), which "
            "has learnt from them: their p-values and findings do not hold; the run's own report has what is known of "
            "them."
        ]
    return [
        f"{name} is {which}: its p-values and findings do not hold; the run's own report has what is known of it."
        for name, which in found.items()
    ]


def check_strangers(artifact: TrainedModel, manifest: Manifest) -> None:
    """Refuse scans that the model knows, where it needs others.

    Args:
        artifact: The model.
        manifest: The scans, with hashes.

    Raises:
        AuditError: Naming the first such scan.
    """
    known = known_scans(artifact)
    for case in manifest:
        if own := [known[digest] for digest in sorted(image_hashes(manifest, case.id)) if digest in known]:
            raise AuditError(f"{case.images[0]}: is {own[0]}; expected healthy scans of other subjects; leave it out")


def inputs_of(manifest: Manifest, cases: Iterable[str]) -> dict[str, dict[str, str]]:
    """Hashes of the files of cases by what they are, as an artifact keeps them; none where they are not known."""
    own = {case.id: zip(("image", "mask"), manifest.hashes_of(case), strict=True) for case in manifest.subset([*cases])}
    return {name: {part: value for part, value in hashes if value} for name, hashes in own.items()}


def _named(inputs: Any, what: str) -> dict[str, str]:
    return {
        digest: f"{case} of the scans that the model was {what}"
        for case, parts in (inputs or {}).items()
        for digest in str(parts.get("image") or "").split(";")
        if digest
    }
