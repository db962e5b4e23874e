"""A backend of two halves: where labels come from, and who paints an image on them.

Any pair has a name, such as ``deform+flow``. Painted labels are right by construction: the image is made for the
labels, none is inferred from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import create_model, model_validator

from medgen.config import Config
from medgen.errors import ArtifactError, ConfigError
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.progress import Log
from medgen.synthesis import label_sources, painters
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import LabelSource, Scan
from medgen.synthesis.label_sources import source_class
from medgen.synthesis.painter import Painter
from medgen.synthesis.painters import painter_class
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, together
from medgen.training.cost import Estimate
from medgen.training.gan_alarms import Alarm
from medgen.training.transfer.source import Lineage

KIND = "pair"
LABELS, PAINTER = "labels", "painter"
# Pairs with a name of their own. ``generators: auto`` asks these, and their settings may be written without saying
# which half they are for.
SHORT: Mapping[str, tuple[str, str]] = {
    "deform": ("deform", "parent"),
    "flow": ("deform", "flow"),
    "lesion": ("lesion", "inpaint"),
    "spade": ("shape", "spade"),
}

_PAINTED = "its scans show patients' anatomies under new appearances"


class PairConfig(BackendConfig):
    """Settings of a pair: ``labels`` are those of its label source, ``painter`` those of its painter.

    What both take from one class of settings, such as which labels are lesions, is one setting: written for one half it
    holds for the other, too.
    """

    @model_validator(mode="before")
    @classmethod
    def _in_halves(cls, given: Any) -> Any:
        for key in given if isinstance(given, Mapping) else ():
            if takers := cls._halves_with(key):
                raise ValueError(
                    f"{key} is a setting of one half: write {' or '.join(f'{half}.{key}' for half in takers)}"
                )
        return cls._shared(given)

    @classmethod
    def _kinds(cls) -> dict[str, type[Config]]:
        """Class of the settings of each half."""
        return {half: cast("type[Config]", cls.model_fields[half].annotation) for half in (LABELS, PAINTER)}

    @classmethod
    def _halves_with(cls, key: str) -> list[str]:
        """The halves that have a setting, which is no half itself."""
        kinds = cls._kinds()
        return [half for half, kind in kinds.items() if key not in kinds and key in kind.model_fields]

    @classmethod
    def _shared(cls, given: Any) -> Any:
        """Settings that are one for both halves, given to both."""
        one, other = cls._kinds().values()
        classes = [kind for kind in one.__mro__ if issubclass(kind, Config) and issubclass(other, kind)]
        common = {key for kind in classes for key in kind.model_fields}
        if not common or not isinstance(given, Mapping):
            return given
        halves = {half: given.get(half, {}) for half in (LABELS, PAINTER)}
        if not all(isinstance(own, Mapping) for own in halves.values()):
            return given
        (labels, painter), shared = halves.values(), {}
        for key in sorted(common & {*labels, *painter}):
            if key in labels and key in painter and labels[key] != painter[key]:
                raise ValueError(
                    f"{key} is one setting of both halves, found {labels[key]} in labels and {painter[key]} in "
                    "painter; write it once"
                )
            shared[key] = labels[key] if key in labels else painter[key]
        return {**given, **{half: {**own, **shared} for half, own in halves.items()}}


class ShortPairConfig(PairConfig):
    """The same for a pair with a name of its own, whose settings may also stand without ``labels`` or ``painter``."""

    @model_validator(mode="before")
    @classmethod
    def _in_halves(cls, given: Any) -> Any:
        """Every setting goes to each half that has it."""
        if not isinstance(given, Mapping):
            return given
        halved = {key: value for key, value in given.items() if not cls._halves_with(key)}
        for key, value in given.items():
            for half in cls._halves_with(key):
                own = halved.get(half, {})
                if not isinstance(own, Mapping) or key in own:
                    raise ValueError(f"{key} is given twice, alone and in {half}; give it once")
                halved[half] = {**own, key: value}
        return cls._shared(halved)


class Pair(Backend):
    """A fitted label source and a fitted painter. Its subclasses are made by :func:`pair_class`, one for every pair.

    Attributes:
        source: Class of the label source.
        painter: Class of the painter.

    Args:
        labels: The fitted label source.
        painting: The fitted painter.
    """

    source: ClassVar[type[LabelSource]]
    painter: ClassVar[type[Painter]]

    def __init__(self, labels: LabelSource, painting: Painter) -> None:
        self._labels, self._painting = labels, painting
        self.sampling = self.Sampling.model_validate({LABELS: labels.sampling, PAINTER: painting.sampling})
        halves = {LABELS: labels, PAINTER: painting}
        meta = {
            "name": self.name,
            **{role: half.name for role, half in halves.items()},
            "parts": {role: half.sha256 for role, half in halves.items()},
            "contains_patient_scans": self.derived,
        }
        self._stored = Stored(KIND, {}, meta)
        self._sha256 = self._stored.sha256

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """Where both halves suit."""
        return together([half.suits(outline, machine, cared_for) for half in (cls.source, cls.painter)])

    @classmethod
    def estimate(cls, config: Any, outline: Outline, device: str) -> Estimate:
        """The cost of both halves, one after the other."""
        labels = cls.source.estimate(config.labels, outline, device, cls.name)
        return labels + cls.painter.estimate(config.painter, outline, device, cls.name)

    @classmethod
    def fit(cls, sources: Sources, config: Any, context: FitContext) -> Self:
        """Fit the label source, then the painter; raises what these raise."""
        contexts = {role: _within(context, role) for role in (LABELS, PAINTER)}
        labels = replace(contexts[LABELS], log=_prefixed(context.log, LABELS))
        return cls(
            cls.source.fit(sources, config.labels, labels),
            cls.painter.fit(sources, config.painter, contexts[PAINTER]),
        )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the name in the folder's record."""
        return stored_pair(folder) == cls.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: If a half is missing, altered, or not the one that belongs to the other.
        """
        stored = load_stored(folder)
        halves = cls.source.load(folder / LABELS, device), cls.painter.load(folder / PAINTER, device)
        stored.check_parts(folder, {LABELS: halves[0].sha256, PAINTER: halves[1].sha256})
        return cls(*halves)

    def save(self, folder: Path) -> None:
        """Write ``labels/`` and ``painter/``, and last the record with their hashes.

        Where :attr:`derived` is set the folder holds patients' scans or label maps: treat it like patient data.
        """
        self._labels.save(folder / LABELS)
        self._painting.save(folder / PAINTER)
        self._stored.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of the record, which covers both halves."""
        return self._sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of the painter's training, and of the label source's with keys that begin with ``labels/``."""
        own = [
            {name if name == "step" else f"{LABELS}/{name}": value for name, value in entry.items()}
            for entry in self._labels.history
        ]
        return [*self._painting.history, *own]

    @property
    def starts(self) -> Mapping[str, Mapping[str, Any]]:
        """Those of both halves."""
        return {**self._labels.starts, **self._painting.starts}

    @property
    def lineages(self) -> Mapping[str, Lineage | None]:
        """Those of both halves."""
        return {**self._labels.lineages, **self._painting.lineages}

    @property
    def alarms(self) -> Sequence[Alarm]:
        """What went wrong in the trainings; kept with the weights."""
        return (*self._labels.alarms, *self._painting.alarms)

    def sampled_by(self, sampling: Any) -> Self:
        """The same halves, which sample by other options."""
        other = super().sampled_by(sampling)
        other._labels = self._labels.sampled_by(sampling.labels)
        other._painting = self._painting.sampled_by(sampling.painter)
        return other

    def sample(self, seed: int) -> Synthetic:
        """The anatomy of this seed with an image painted on it; its parents are those of the anatomy."""
        anatomy = self._labels.draw(self.painter.labels_seed(seed))
        painted = self._painting.paint(anatomy, seed)
        made = {"labels_from": self.source.name, "painted_by": self.painter.name}
        warned = {"alarms": [alarm.name for alarm in self.alarms]} if self.alarms else {}
        # Elsewhere the scan is its first parent's.
        part = self.painter.starts_from is Scan.HOST
        changed: dict[str, Any] = {"region": anatomy.region, "made": anatomy.made} if part else {}
        return Synthetic(
            image=painted.image,
            labels=painted.labels,
            backend=self.name,
            seed=seed,
            parents=anatomy.parents,
            facts={**made, **anatomy.facts, **painted.facts, **warned},
            **changed,
        )


def pairs() -> list[str]:
    """Full names of all pairs that there are, sorted.

    >>> {"deform+flow", "shape+spade"} <= set(pairs()), "shape+parent" in pairs()
    (True, False)
    """
    found = [(one, other) for one in label_sources.available() for other in painters.available()]
    return sorted(f"{one}+{other}" for one, other in found if not _misfit(one, other))


def halves_of(name: str) -> tuple[str, str] | None:
    """Label source and painter of a short or full name; None if it is no name of a pair at all.

    >>> halves_of("spade"), halves_of("deform+flow"), halves_of("joint")
    (('shape', 'spade'), ('deform', 'flow'), None)
    """
    if name in SHORT:
        return SHORT[name]
    labels, plus, painter = name.partition("+")
    return (labels, painter) if plus else None


def pair_class(name: str) -> type[Pair]:
    """The backend of a pair, by its short or full name.

    >>> pair_class("deform+flow").derived, pair_class("shape+flow").derived
    (True, False)

    Raises:
        ConfigError: If there is no such pair; the message lists label sources and painters.
    """
    halves = halves_of(name)
    known = label_sources.available(), painters.available()
    if halves is None or halves[0] not in known[0] or halves[1] not in known[1]:
        raise ConfigError(
            f"generators: expected labels+painter with labels of {', '.join(known[0])} and a painter of "
            f"{', '.join(known[1])}, found {name!r}"
        )
    if why := _misfit(*halves):
        raise ConfigError(f"generators: {name!r} is no pair: {why}")
    return _made(name, source_class(halves[0]), painter_class(halves[1]))


def stored_pair(folder: Path) -> str | None:
    """Name of the pair that is kept in a folder; None if none is.

    Raises:
        ArtifactError: If it is one of an earlier medgen, or its record is incomplete or altered.
    """
    kind = stored_kind(folder)
    if kind in SHORT:
        raise ArtifactError(
            f"{folder}: a {kind} generator of an earlier medgen, which kept it in another form; use the medgen that "
            "wrote it, or train it again"
        )
    return str(load_stored(folder).meta.get("name")) if kind == KIND else None


def _misfit(labels: str, painter: str) -> str:
    """Why a label source and a painter make no pair; empty if they make one."""
    wanted = painter_class(painter).starts_from
    if wanted in {Scan.NONE, source_class(labels).brings}:
        return ""
    having = [name for name in label_sources.available() if source_class(name).brings is wanted]
    return f"the painter {painter!r} needs {wanted}, as from {', '.join(having)}"


@cache
def _made(name: str, source: type[LabelSource], painter: type[Painter]) -> type[Pair]:
    base = ShortPairConfig if name in SHORT else PairConfig
    fields: dict[str, Any] = {LABELS: (source.Config, source.Config()), PAINTER: (painter.Config, painter.Config())}
    options: dict[str, Any] = {
        LABELS: (source.Sampling, source.Sampling()),
        PAINTER: (painter.Sampling, painter.Sampling()),
    }
    title = "".join(part.title() for part in name.split("+"))
    return type(
        f"{title}Pair",
        (Pair,),
        {
            "__doc__": f"Labels of {source.name!r}, painted by {painter.name!r}.",
            "__module__": __name__,
            "name": name,
            "source": source,
            "painter": painter,
            "derived": source.derived,
            "derivation": _PAINTED if painter.starts_from is Scan.NONE else Backend.derivation,
            "Config": create_model(f"{title}Config", __base__=base, __module__=__name__, **fields),
            "Sampling": create_model(f"{title}Sampling", __base__=base, __module__=__name__, **options),
            "tiny": {LABELS: source.tiny, PAINTER: painter.tiny},
            "families": {**source.families, **painter.families},
            "turn": max(source.turn, painter.turn),
        },
    )


def _within(context: FitContext, role: str) -> FitContext:
    return replace(context, out=None if context.out is None else context.out / role)


def _prefixed(log: Log | None, prefix: str) -> Log | None:
    if log is None:
        return None

    def prefixed(numbers: dict[str, float], step: int) -> None:
        log({f"{prefix}/{name}": value for name, value in numbers.items()}, step)

    return prefixed
