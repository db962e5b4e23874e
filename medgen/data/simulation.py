"""A cohort of simulated brains with label maps, drawn from the MNI template; deterministic in the seed.

Every subject is the template under a random diffeomorphism (its Jacobian determinant is checked), with its own cortical
detail, ventricle size, tissue contrast, bias field and noise: in the manner of Billot et al., "SynthSeg", Medical Image
Analysis 2023, with the template's texture kept. It is simulated anatomy of one average brain: good to try a pipeline,
not evidence about patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen import io
from medgen.data.cards.card import synthetic_card
from medgen.data.cases import Case, Manifest, moved
from medgen.data.mni_template import BrainTemplate, brain_template
from medgen.errors import DataError
from medgen.progress import Progress
from medgen.seeds import numpy_rng, torch_rng
from medgen.system.files import write_text
from medgen.system.new_folder import new_folder
from medgen.volume import Grid, Volume, resample

if TYPE_CHECKING:
    import torch

SIMULATED = "simulated"
"""Name of a simulated cohort, if nothing else is said, and its kind."""

LABELS = {1: "CSF", 2: "GM", 3: "WM"}

# Step of the grid that velocities are integrated on (mm), and control point distance (mm) and standard deviation (mm)
# of each scale of the random velocity.
_FIELD_STEP = 4.0
_SCALES = ((60.0, 2.2), (30.0, 1.6), (16.0, 1.0))
_LEAST_JACOBIAN = 0.1
# Room around the template's brain, for larger heads (mm).
_MARGIN = 12.0


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """One simulated scan.

    Attributes:
        image: (1, i, j, k) int16, arbitrary units, 0 exactly outside the brain.
        labels: (1, i, j, k) uint8; see :data:`LABELS`; above 0 exactly in the brain.
        ventricle_scale: Volume of the lateral ventricles relative to that of the brain, over the template's ratio.
        least_jacobian: Smallest Jacobian determinant of the nonlinear warp, above 0.
    """

    image: Volume
    labels: Volume
    ventricle_scale: float
    least_jacobian: float


def simulate(
    out: str | Path,
    n: int,
    seed: int,
    spacing: float | Sequence[float] = 2.0,
    *,
    name: str = SIMULATED,
    progress: Progress | None = None,
) -> Manifest:
    """Write a cohort of ``n`` simulated subjects: images/, masks/, manifest.csv, manifest.json and card.md.

    Subject i depends on the seed, i and the spacing, not on ``n``. The folder appears when it is complete.

    Args:
        out: A folder that does not exist or is empty.
        n: Number of subjects, 1 to 9999.
        seed: Seed of all randomness; equal seeds give equal files.
        spacing: Voxel size in mm, one number or (i, j, k); 0.5 to 16.
        name: What the cohort is called.
        progress: Called with (subjects done, n).

    Returns:
        The manifest, with hashes.

    Raises:
        DataError: If ``out`` is not empty or cannot be written, or ``n`` or ``spacing`` are out of range.
    """
    if not 1 <= n <= 9999:
        raise DataError(f"expected 1 to 9999 subjects, found n={n}")
    out = Path(out)
    grid = cohort_grid(spacing)
    drawer = SubjectDrawer(grid)
    with new_folder(out) as folder:
        cases = []
        for index in range(n):
            subject = drawer.draw(seed, index)
            case = f"sim-{index:04d}"
            image, mask = folder / "images" / f"{case}.nii.gz", folder / "masks" / f"{case}.nii.gz"
            io.write(subject.image, image, description="medgen simulated")
            io.write(subject.labels, mask, description="medgen simulated")
            attributes = {"ventricle_scale": f"{subject.ventricle_scale:.3f}"}
            cases.append(Case(case, case, (image,), mask, attributes))
            if progress is not None:
                progress(index + 1, n)
        manifest = Manifest(name, folder, tuple(cases), LABELS).with_hashes()
        manifest.write_csv(folder / "manifest.csv")
        write_text(folder / "card.md", _card(manifest, seed, grid.spacing))
    return moved(manifest, folder, out)


def cohort_grid(spacing: float | Sequence[float]) -> Grid:
    """The RAS+ grid all simulated scans of a spacing share: the template's brain and a margin of 12 mm.

    Raises:
        DataError: If the spacing is not one or three numbers from 0.5 to 16 mm.
    """
    step = np.atleast_1d(np.asarray(spacing, dtype=np.float64))
    if step.shape not in ((1,), (3,)) or not np.all((step >= 0.5) & (step <= 16)):
        raise DataError(f"expected a spacing of one or three numbers from 0.5 to 16 mm, found {spacing}")
    step = np.broadcast_to(step, (3,))
    template = brain_template().grid
    shape = np.ceil((np.array(template.shape) + 2 * _MARGIN) / step).astype(int)
    return template.centred(tuple(shape.tolist()), tuple(step.tolist()))


class SubjectDrawer:
    """Draws subjects on one grid; holds the template, smoothed once to the grid's point spread function."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.template = brain_template()
        self._field_grid = self.template.grid.centred(
            tuple(int(np.ceil((n + 2 * _MARGIN) / _FIELD_STEP)) for n in self.template.grid.shape), (_FIELD_STEP,) * 3
        )
        self._sources = _antialiased(self.template, grid.spacing)
        self._expansion = _expansion(self.template, self._field_grid)

    def draw(self, seed: int, index: int) -> SimulatedSubject:
        """Subject ``index`` of the cohort with this seed."""
        rng = numpy_rng(seed, "simulate", index)
        size = float(np.clip(rng.normal(0.2, 0.9), -1.4, 2.5))  # mm that the ventricles' walls move outwards
        displacement, least = _displacement(self._expansion, size, torch_rng(seed, "simulate", index), self._field_grid)
        points = self._positions(displacement, rng)
        t1, csf, gm, wm, brain, ventricles = (
            ndimage.map_coordinates(source, points, order=1, mode="constant", cval=0, prefilter=False)
            for source in self._sources
        )
        inside = brain >= 0.5
        tissues = _individual(np.stack([csf, gm, wm]), rng, self.grid.spacing)
        image = _intensities(t1, tissues, inside, rng, self.grid.spacing)
        labels = np.where(inside, tissues.argmax(0) + 1, 0).astype(np.uint8)
        template = self.template
        ratio = float(ventricles.sum() / brain.sum()) / float(template.ventricles.sum() / template.brain.sum())
        return SimulatedSubject(Volume(image[None], self.grid), Volume(labels[None], self.grid), ratio, least)

    def _positions(self, displacement: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
        """Template voxel coordinates (3, i, j, k) of the grid's voxels: a small affine, then the displacement."""
        world = _affine(rng, self.grid.center)
        axes = [np.arange(n, dtype=np.float64) for n in self.grid.shape]
        voxels = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
        to_field = np.linalg.inv(self._field_grid.affine) @ world @ self.grid.affine
        in_field = to_field[:3, :3] @ voxels + to_field[:3, 3:]
        moves = [ndimage.map_coordinates(part, in_field, order=1, mode="nearest") for part in displacement]
        to_template = np.linalg.inv(self.template.grid.affine) @ self._field_grid.affine
        points = to_template[:3, :3] @ (in_field + np.stack(moves)) + to_template[:3, 3:]
        return points.reshape(3, *self.grid.shape)


def _antialiased(template: BrainTemplate, spacing: Sequence[float]) -> list[NDArray[np.float32]]:
    """The template's maps, blurred as the coarser grid sees them (Cardoso et al., MICCAI 2015)."""
    sigma = np.sqrt(np.maximum(np.array(spacing) ** 2 - 1, 0)) / (2 * np.sqrt(2 * np.log(2)))
    maps = (template.t1, template.csf, template.gm, template.wm, template.brain, template.ventricles)
    return [ndimage.gaussian_filter(array, sigma, mode="constant", truncate=3) for array in maps]


def _expansion(template: BrainTemplate, grid: Grid) -> torch.Tensor:
    """Velocity (1, 3, i, j, k), in voxels of the field grid, that grows the ventricles: at most 1 mm, fading around.

    As a pull-back it points inwards, up the gradient of the blurred ventricle mask.
    """
    import torch

    smooth = ndimage.gaussian_filter(template.ventricles, 5.0)
    coarse = resample(Volume(smooth[None], template.grid), grid).data[0]
    gradient = np.stack(np.gradient(coarse.astype(np.float64)))
    gradient /= np.linalg.norm(gradient, axis=0).max()
    return torch.from_numpy((gradient / _FIELD_STEP).astype(np.float32))[None]


def _displacement(
    expansion: torch.Tensor, size: float, generator: torch.Generator, grid: Grid
) -> tuple[NDArray[np.float32], float]:
    """A random diffeomorphic displacement (3, i, j, k) in voxels of the field grid, and its least Jacobian."""
    from medgen.transforms.fields import exponentiate, jacobian_minimum, smooth_noise

    velocity = size * expansion
    for distance, amplitude in _SCALES:
        noise = smooth_noise(1, 3, grid.shape, distance / _FIELD_STEP, generator)
        velocity = velocity + amplitude / _FIELD_STEP * noise
    while True:
        displacement = exponentiate(velocity)
        least = float(jacobian_minimum(displacement))
        if least >= _LEAST_JACOBIAN:
            return displacement[0].numpy(), least
        velocity = 0.8 * velocity  # the flow of a smaller velocity folds less, down to the identity


def _affine(rng: np.random.Generator, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """World map 4 × 4: rotation of a few degrees, scale of a few per cent per axis and shift of a few mm."""
    x, y, z = np.deg2rad(np.clip(rng.normal(0, 2.5, 3), -6, 6))
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    )
    scale = np.exp(np.clip(rng.normal(0, 0.025, 3), -0.06, 0.06))
    world = np.eye(4)
    world[:3, :3] = rotation @ np.diag(scale)
    world[:3, 3] = centre + np.clip(rng.normal(0, 1.2, 3), -3, 3) - world[:3, :3] @ centre
    return world


def _individual(
    tissues: NDArray[np.float32], rng: np.random.Generator, spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Tissue maps (3, i, j, k) of one person: the average's blurred folds are sharpened and moved at random."""
    noise = np.stack([_smooth(rng, tissues.shape[1:], 4.0, spacing) for _ in range(3)])
    sharp = np.maximum(tissues, 1e-4) ** 2 * np.exp(0.45 * noise)
    result: NDArray[np.float32] = (sharp / sharp.sum(0)).astype(np.float32)
    return result


def _intensities(
    t1: NDArray[np.float32],
    tissues: NDArray[np.float32],
    inside: NDArray[np.bool_],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> NDArray[np.int16]:
    """T1-weighted magnitude (i, j, k): contrast × bias field, Rician noise, 0 outside the brain."""
    csf, gm, wm = rng.normal(0.26, 0.04), rng.normal(0.62, 0.03), rng.normal(0.90, 0.02)
    # Tissue means of the template (CSF 0.27, GM 0.65, WM 0.87) go to the subject's, its texture with them.
    texture = np.interp(t1, (0, 0.27, 0.65, 0.87, 1), (0, csf, gm, wm, wm + 0.12))
    contrast = np.tensordot(np.array([csf, gm, wm]), tissues, axes=1)
    share = rng.uniform(0.35, 0.6)
    clean = share * texture + (1 - share) * contrast
    bias = np.exp(rng.uniform(0.05, 0.15) * _smooth(rng, t1.shape, 45.0, spacing))
    level = rng.uniform(0.015, 0.035)
    real = clean * bias + level * rng.standard_normal(t1.shape)
    magnitude = np.hypot(real, level * rng.standard_normal(t1.shape))
    gain = np.exp(rng.normal(np.log(800), 0.4))  # MR units are arbitrary
    # 1 is the least value in the brain, so that exactly the background is 0.
    scaled = np.clip(np.rint(gain * magnitude), 1, np.iinfo(np.int16).max)
    return np.where(inside, scaled, 0).astype(np.int16)


def _smooth(
    rng: np.random.Generator, shape: Sequence[int], sigma_mm: float, spacing: Sequence[float]
) -> NDArray[np.float64]:
    """A smooth Gaussian random field of standard deviation 1: white noise on a grid of sigma/2, blurred, interpolated.

    The coarse noise comes first, so every spacing of a cohort sees the same kind of field.
    """
    step = np.maximum(sigma_mm / 2, np.array(spacing, dtype=np.float64))
    extent = (np.array(shape) - 1) * np.array(spacing)
    coarse_shape = np.ceil(extent / step).astype(int) + 3
    coarse = ndimage.gaussian_filter(rng.standard_normal(coarse_shape), sigma_mm / step, mode="wrap")
    coarse /= max(float(coarse.std()), 1e-12)
    scale = np.array(spacing) / step
    return ndimage.affine_transform(coarse, scale, offset=1.0, output_shape=tuple(shape), order=1, mode="nearest")


def _card(manifest: Manifest, seed: int, spacing: Sequence[float]) -> str:
    n = len(manifest)
    return synthetic_card(
        manifest.name,
        kind="simulated",
        n_cases=n,
        n_subjects=n,
        spacing=spacing,
        labels=LABELS,
        seeds=(seed,),
        generator="medgen data simulate",
        manifest_sha256=manifest.digest(),
        description="Simulated skull-stripped T1-weighted brains with tissue labels, drawn from the MNI template.",
        modality="simulated MR, T1-weighted",
        licence="that of the MNI ICBM152 template (free to use, copy and distribute with its copyright notice)",
        intended_use="trying, testing and teaching pipelines where no data can be shared",
        not_for="evidence about patients, scanners or diseases",
        known_biases=(
            "one average template of young adults: no anatomy outside smooth deformations of it",
            "cortical folds are random detail, not anatomy",
            "no pathology, no motion, no scanner differences other than contrast, bias field and noise",
        ),
        privacy="no person is shown; the template averages 152 volunteers",
        sections={
            "Composition": f"{n} independent subjects with one image (0 outside the brain) and one label map each. "
            "`ventricle_scale` is the ventricles' share of the brain over the template's.",
            "Collection": "Template T1, GM and WM maps (Fonov et al., NeuroImage 2011), warped by a random affine and "
            "a random diffeomorphism with positive Jacobian determinant; each subject has its own contrast, bias "
            "field and Rician noise. Labels are the largest of the warped tissue probabilities.",
            "Use": "Subjects are independent; any split is a split by subject.",
            "Limits": "Results on this cohort do not carry over to patients. Report results on real data.",
        },
    )
