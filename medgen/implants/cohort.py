"""Implanted copies of a healthy cohort, in its native grids, with ground truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgen import io
from medgen.data.cards.card import synthetic_card
from medgen.data.cases import Case, Manifest, moved
from medgen.data.masks import read_labels
from medgen.errors import ConfigError, DataError
from medgen.faults import Fault, FaultyDataError
from medgen.implants.catalogue import check_kinds, registered
from medgen.implants.scan import implant
from medgen.progress import Progress
from medgen.seeds import numpy_rng
from medgen.system import files
from medgen.system.new_folder import new_folder
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Grid, Volume, resample

LABELS = {1: "implant"}

# Places tried before an implant that changes nothing is an error.
_PLACES = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which implant a scan gets."""

    kind: str
    radius_mm: float
    contrast: float
    shape: Path | None
    foreign: Case | None


def implant_cohort(
    manifest: Manifest,
    out: str | Path,
    seed: int,
    kinds: Sequence[str] | None = None,
    masks: str | Path | None = None,
    radius_mm: tuple[float, float] = (3.0, 8.0),
    contrast: tuple[float, float] = (1.0, 3.0),
    per_scan: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Write every scan twice: as it is with an empty truth mask, and ``per_scan`` times with one implant.

    Kinds take turns in a random order, so all occur equally often; radius (uniform) and contrast (uniform) are drawn
    per implant. Both versions are float32 NIfTI written alike, so that nothing but the implant tells them apart.

    Args:
        manifest: Healthy scans, in any grids.
        out: A folder that does not exist or is empty; gets images/, masks/, manifest.csv and card.md. The manifest's
            columns ``kind`` (``none`` for healthy), ``radius_mm``, ``contrast`` and ``source`` (the healthy case's id)
            say what was done.
        seed: Seed of all randomness; a case's implant depends on it, the case's id and the other arguments.
        kinds: Names in :func:`medgen.implants.catalogue.registered`; default: all that the other arguments allow, but
            for those that channels are chosen on.
        masks: Folder of lesion masks (any image format, above 0 is lesion) that ``lesion`` takes its form from.
        radius_mm: Least and largest radius.
        contrast: Least and largest contrast, in the unit of each kind.
        per_scan: Implanted copies of each scan.
        progress: Called with (scans done, all scans).

    Returns:
        The manifest with hashes, subjects as in the source.

    Raises:
        ConfigError: If a kind is unknown or lacks what it needs, or a range is not positive and ascending.
        DataError: If there is no scan, a scan cannot be used, or ``out`` is not empty.
    """
    if not manifest.cases:
        raise DataError(f"{manifest.name}: no scan to put implants into; check the cohort")
    for name, (low, high) in {"radius_mm": radius_mm, "contrast": contrast}.items():
        if not 0 < low <= high:
            raise ConfigError(f"{name}: expected a positive, ascending range, found {low:g} to {high:g}")
    if per_scan < 1:
        raise ConfigError(f"expected per_scan of at least 1, found {per_scan}")
    shapes = [] if masks is None else readable_masks(masks)
    names = _kinds(kinds, bool(shapes), len(manifest.subjects))
    plans = _plans(manifest, names, shapes, seed, radius_mm, contrast, per_scan)

    out = Path(out)
    with new_folder(out) as folder:
        cases: list[Case] = []
        spacings = []
        for number, case in enumerate(manifest):
            scan = case.read_image()
            spacings.append(scan.grid.spacing)
            cases.append(_healthy(case, scan, folder))
            for copy, plan in enumerate(plans[case.id]):
                cases.append(_implanted(case, scan, plan, copy, folder, seed))
            if progress is not None:
                progress(number + 1, len(manifest))
        result = Manifest(f"{manifest.name}-implanted", folder, tuple(cases), LABELS).with_hashes()
        result.write_csv(folder / "manifest.csv")
        spacing = np.median(np.array(spacings), axis=0).tolist()
        files.write_text(folder / "card.md", _card(result, manifest, seed, names, spacing))
    return moved(result, folder, out)


def lesion_masks(folder: str | Path) -> list[Path]:
    """The image files of a folder that may be lesion masks, sorted by name.

    Raises:
        DataError: If it is no folder or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with lesion masks")
    found = sorted(path for path in folder.iterdir() if io.is_image(path))
    if not found:
        raise DataError(f"{folder}: no image in it; expected lesion masks such as lesion-01.nii.gz")
    return found


def readable_masks(folder: str | Path) -> list[Path]:
    """:func:`lesion_masks`, all of which can be read: what is damaged is no template that could be passed over.

    Raises:
        FaultyDataError: With every image that cannot be read.
        DataError: As :func:`lesion_masks`.
    """
    found = lesion_masks(folder)
    faults: list[Fault] = []
    for path in found:
        try:
            io.read(path)
        except FaultyDataError as error:
            faults.extend(error.faults)
    if faults:
        raise FaultyDataError(faults)
    return found


def read_shape(path: Path) -> NDArray[np.bool_]:
    """A lesion mask with cubic voxels, (i, j, k), for ``implant(shape=...)``.

    Raises:
        DataError: If it cannot be read or is not a mask: not labels, or more than half of it above 0.
    """
    mask = read_labels(path)
    step = min(mask.grid.spacing)
    if max(mask.grid.spacing) > 1.01 * step:
        extent = np.array(mask.grid.shape) * np.array(mask.grid.spacing)
        size = np.maximum(np.round(extent / step), 1).astype(int)
        mask = resample(mask, mask.grid.centred(tuple(size.tolist()), (step,) * 3), order=0)
    lesion: NDArray[np.bool_] = mask.data[0] > 0
    if not 0 < lesion.mean() <= 0.5:
        share = f"{lesion.mean():.0%} of its voxels above 0"
        raise DataError(f"{path}: {share}; expected a lesion mask; leave other images out of the folder")
    return lesion


def _kinds(kinds: Sequence[str] | None, shaped: bool, subjects: int) -> tuple[str, ...]:
    known = registered()
    if kinds is None:
        usable = [kind for kind in known.values() if not kind.validation]
        usable = [kind for kind in usable if (shaped or not kind.shape) and (subjects > 1 or not kind.foreign)]
        return tuple(kind.name for kind in usable)
    check_kinds(kinds)
    if not kinds:
        raise ConfigError(f"no implant kind chosen; known kinds: {', '.join(known)}")
    if not shaped and (shapes := [kind for kind in kinds if known[kind].shape]):
        raise ConfigError(f"implant kind {min(shapes)!r} takes its form from real masks; pass --masks FOLDER")
    if subjects < 2 and (foreign := [kind for kind in kinds if known[kind].foreign]):
        raise ConfigError(f"implant kind {min(foreign)!r} needs scans of at least two subjects, found {subjects}")
    return tuple(dict.fromkeys(kinds))


def _plans(
    manifest: Manifest,
    kinds: Sequence[str],
    shapes: Sequence[Path],
    seed: int,
    radius_mm: tuple[float, float],
    contrast: tuple[float, float],
    per_scan: int,
) -> dict[str, list[_Plan]]:
    total = len(manifest) * per_scan
    rounds = -(-total // len(kinds))
    order = numpy_rng(seed, "implant-kinds")
    turns = [str(kind) for _ in range(rounds) for kind in order.permutation(list(kinds))]
    plans: dict[str, list[_Plan]] = {case.id: [] for case in manifest}
    usable: dict[Path, bool] = {}
    for number, case in enumerate(case for case in manifest for _ in range(per_scan)):
        rng = numpy_rng(seed, "implant-plan", case.id, len(plans[case.id]))
        others = [other for other in manifest if other.subject != case.subject]
        foreign = others[int(rng.integers(len(others)))] if others else None
        kind = registered()[turns[number]]
        # Folders of masks often hold their template too: what is no mask is passed over.
        shape = first_usable(rng.permutation(len(shapes)).tolist(), shapes, usable) if kind.shape else None
        plans[case.id].append(
            _Plan(
                kind.name,
                float(rng.uniform(*radius_mm)),
                float(rng.uniform(*contrast)),
                shape,
                foreign if kind.foreign else None,
            )
        )
    return plans


def first_usable(order: Sequence[int], shapes: Sequence[Path], known: dict[Path, bool]) -> Path:
    """The first image in ``order`` (indices into ``shapes``) that :func:`read_shape` takes for a lesion mask.

    Args:
        order: Indices in the order of trying.
        shapes: Image files, such as those of :func:`lesion_masks`; a template among them is passed over, with a note.
        known: What is known of files from earlier calls; gets what is learned.

    Raises:
        DataError: If none is a mask.
    """
    for index in order:
        path = shapes[int(index)]
        if path not in known:
            try:
                read_shape(path)
                known[path] = True
            except DataError as error:
                known[path] = False
                logger.warning("not used as a lesion shape: %s", error)
        if known[path]:
            return path
    raise DataError(
        f"{shapes[0].parent}: none of {len(shapes)} images is a lesion mask; expected 0 and above 0 for lesion"
    )


def _healthy(case: Case, scan: Volume, folder: Path) -> Case:
    attributes = {"kind": "none", "radius_mm": "0", "contrast": "0", "source": case.id}
    truth = np.zeros(scan.grid.shape, dtype=bool)
    return _write(f"{case.id}-healthy", case, scan.data.astype(np.float32), truth, scan.grid, attributes, folder)


def _implanted(case: Case, scan: Volume, plan: _Plan, copy: int, folder: Path, seed: int) -> Case:
    foreground = foreground_mask(scan.data)
    foreign = None if plan.foreign is None else _on_grid(plan.foreign, scan.grid)
    if foreign is not None and len(foreign) != len(scan.data):
        raise DataError(
            f"{case.id} has {len(scan.data)} channels, its foreign scan {len(foreign)}; expected equal numbers"
        )
    shape = None if plan.shape is None else read_shape(plan.shape)
    # Some places show nothing: darkening a black ventricle, the mirror image of empty space. Then another is drawn.
    for attempt in range(_PLACES):
        try:
            changed, truth = _implant_channels(scan, foreground, plan, foreign, shape, (seed, case.id, copy, attempt))
        except DataError as error:
            raise DataError(f"{case.images[0]}: {error}") from None
        if truth.any():
            break
    else:
        raise DataError(
            f"{case.images[0]}: implant {plan.kind!r} of radius {plan.radius_mm:.1f} mm and contrast "
            f"{plan.contrast:.2f} changes nothing at any of {_PLACES} places, voxels being "
            f"{' x '.join(f'{step:g}' for step in scan.grid.spacing)} mm; use scans with finer voxels, or choose other "
            "kinds (--kinds)"
        )
    attributes = {
        "kind": plan.kind,
        "radius_mm": f"{plan.radius_mm:.3f}",
        "contrast": f"{plan.contrast:.3f}",
        "source": case.id,
    }
    return _write(f"{case.id}-{plan.kind}-{copy}", case, changed, truth, scan.grid, attributes, folder)


def _implant_channels(
    scan: Volume,
    foreground: NDArray[np.bool_],
    plan: _Plan,
    foreign: NDArray[np.float32] | None,
    shape: NDArray[np.bool_] | None,
    stream: tuple[int, str, int, int],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Changed image (c, i, j, k) and truth (i, j, k); channels share the stream, hence the place."""
    changed = np.empty(scan.data.shape, dtype=np.float32)
    truth = np.zeros(scan.grid.shape, dtype=bool)
    for channel, image in enumerate(scan.data):
        done = implant(
            image,
            foreground,
            plan.kind,
            numpy_rng(stream[0], "implant", *stream[1:]),
            radius_mm=plan.radius_mm,
            spacing=scan.grid.spacing,
            contrast=plan.contrast,
            foreign=None if foreign is None else foreign[channel],
            shape=shape,
        )
        changed[channel] = done.image
        truth |= done.mask
    return changed, truth


def _on_grid(other: Case, grid: Grid) -> NDArray[np.float32]:
    """Another scan's foreground, middle on middle, on this grid; NaN elsewhere. Shape (c, i, j, k)."""
    scan = other.read_image()
    inside = foreground_mask(scan.data)
    masked = np.where(inside, scan.data.astype(np.float32), np.float32(np.nan))
    move = np.eye(4)
    move[:3, 3] = grid.center - scan.grid.center
    return resample(Volume(masked, scan.grid.moved(move)), grid, order=1, fill=np.nan).data


def _write(
    name: str,
    case: Case,
    data: NDArray[np.float32],
    truth: NDArray[np.bool_],
    grid: Grid,
    attributes: dict[str, str],
    folder: Path,
) -> Case:
    images = []
    for channel, image in enumerate(data):
        suffix = "" if len(data) == 1 else f"_{channel:04d}"
        images.append(folder / "images" / f"{name}{suffix}.nii.gz")
        io.write(Volume(image[None], grid), images[-1], description="medgen implant study")
    mask = folder / "masks" / f"{name}.nii.gz"
    io.write(Volume(truth[None].astype(np.uint8), grid), mask, description="medgen implant truth")
    return Case(name, case.subject, tuple(images), mask, attributes)


def _card(result: Manifest, source: Manifest, seed: int, kinds: Sequence[str], spacing: Sequence[float]) -> str:
    return synthetic_card(
        result.name,
        kind="implanted",
        n_cases=len(result),
        n_subjects=len(result.subjects),
        spacing=spacing,
        labels=LABELS,
        seeds=(seed,),
        generator="medgen data implant",
        parents_sha256=source.digest(),
        manifest_sha256=result.digest(),
        description=f"The scans of {source.name}, as they are and with implanted anomalies and their ground truth.",
        modality=f"as {source.name}",
        licence=f"that of {source.name}: these scans are derived from it",
        intended_use="measuring anomaly detection on known anomalies",
        not_for="claims about real pathology: implants are drawn, not diseases",
        known_biases=("implants are of the chosen kinds, sizes and contrasts only",),
        privacy=f"the scans show the people of {source.name}; the same care applies",
        sections={
            "Composition": f"{len(source)} healthy scans and {len(result) - len(source)} implanted copies. Kinds: "
            f"{', '.join(kinds)}. Columns `kind`, `radius_mm`, `contrast` and `source` describe each.",
            "Collection": "Healthy scans are unchanged but stored as float32. Masks hold the voxels that changed.",
            "Use": "Copies of one subject share its `subject`; split by it. Do not tune a model on its test implants.",
            "Limits": "Every case with an implant has a healthy twin in the cohort, which real studies do not have.",
        },
    )
