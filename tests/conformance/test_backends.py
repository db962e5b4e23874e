"""Every backend: same seed same bytes, survives saving, respects labels, and cannot see what it must not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medgen.errors import ArtifactError, AuditError, DataError
from medgen.metrics.segmentation import dice
from medgen.models.sampling import Options, overridden
from medgen.preprocessing.dataset import Dataset
from medgen.synthesis import Backend, load_backend
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends import backend_class, every_name
from medgen.synthesis.backends.joint import JointBackend, JointConfig
from medgen.synthesis.cohort.label_facts import label_facts
from medgen.synthesis.estimates import Outline
from medgen.synthesis.lineage import guard, guard_split
from medgen.synthesis.pair import SHORT, halves_of
from medgen.synthesis.sources import Sources
from medgen.synthesis.variation import chances, choose_pairs, components_of
from medgen.transforms.fields import expand, exponentiate, jacobian_minimum, warp_labels
from medgen.transforms.velocity_registration import RegistrationConfig, bending, local_correlation, register
from tests.builders.labelled_scans import blobs, tiny_settings

DEFORM, SPADE = backend_class("deform"), backend_class("spade")
REGISTRATION = RegistrationConfig(spacing=6, iterations=25, window=5)
# A pair with a name of its own is the same backend under its full one.
NAMES = [name for name in every_name() if name in SHORT or halves_of(name) not in SHORT.values()]


@pytest.fixture(scope="module", params=NAMES)
def backend(request: pytest.FixtureRequest, sources: Sources, context: FitContext) -> Backend:
    kind = backend_class(request.param)
    settings = kind.Config.model_validate(tiny_settings(kind))
    return kind.fit(sources, settings, context)


def test_equal_seeds_give_equal_scans(backend: Backend, sources: Sources) -> None:
    first, second, other = backend.sample(11), backend.sample(11), backend.sample(12)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.image.tobytes() != other.image.tobytes()
    assert first.image.shape == (1, *sources.labelled.shape)
    assert first.image.dtype == np.float32
    assert first.labels.dtype == np.uint8
    assert set(np.unique(first.labels)) <= {0, 1, 4}
    assert np.isfinite(first.image).all()
    assert first.image.min() >= 0
    assert first.backend == backend.name
    guard(first.parents, sources.ids)
    # The filter and the audit treat a patient's scan in another shape as what it is.
    assert backend.derived or not first.parents


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_estimates_itself(name: str, sources: Sources) -> None:
    kind = backend_class(name)
    organ, other = label_facts(sources.labelled, sources.labels)
    # One label is as lesions are: elsewhere in each scan, of any size, and as large as a scan lets it be.
    found = (organ, replace(other, position=0.2, variation=1.0, share=0.01, extent=(24, 24, 24)))
    small = kind.estimate(kind.Config(), Outline((16, 20, 16), 1, sources.labels, 6, 4, found), "cpu")
    large = kind.estimate(kind.Config(), Outline((32, 40, 32), 1, sources.labels, 6, 4, found), "cpu")
    assert small.lines
    assert all(name in line for line in small.lines)
    assert 0 < small.sample_seconds < small.seconds
    assert large.bytes > 1.5 * small.bytes
    assert small.bytes > 0


def test_saved_backends_sample_the_same(backend: Backend, tmp_path: Path) -> None:
    folder = tmp_path / backend.name
    backend.save(folder)
    loaded = load_backend(folder, "cpu")
    assert loaded.name == backend.name
    assert loaded.sha256 == backend.sha256
    assert loaded.sample(5).image.tobytes() == backend.sample(5).image.tobytes()
    assert loaded.sample(5).labels.tobytes() == backend.sample(5).labels.tobytes()


def options_of(sampling: Options) -> list[tuple[str, ...]]:
    """Names of all options, those of groups with the group's name before them."""
    found: list[tuple[str, ...]] = []
    for name in type(sampling).model_fields:
        value = getattr(sampling, name)
        found += [(name, *rest) for rest in options_of(value)] if isinstance(value, Options) else [(name,)]
    return found


# Options that show in few scans only (fields that fold, lesions at a rim, several lesions), and other values of such
# as are no numbers.
RARE = {"min_jacobian", "inside", "most", "overlap"}
OTHER: dict[str, Any] = {"approach": (0.9, 1.0), "overlap": False}


def test_every_option_of_sampling_changes_samples_and_not_the_generator(backend: Backend) -> None:
    before = [backend.sample(seed).image.tobytes() for seed in (1, 2, 3)]
    # An image that is painted anew keeps nothing of the moved one.
    rare = RARE if backend.name == "deform" else RARE | {"appearance"}
    for *groups, option in options_of(backend.sampling):
        usual: Any = backend.sampling
        for name in (*groups, option):
            usual = getattr(usual, name)
        given: Any = OTHER.get(option, 2 * usual if isinstance(usual, int) else 0.4)
        for name in (option, *reversed(groups)):
            given = {name: given}
        other = backend.sampled_by(overridden(backend.sampling, given, "sampling"))
        assert other.sha256 == backend.sha256
        assert backend.sampled_by(other.sampling).sampling != backend.sampling
        if option not in rare:
            assert [other.sample(seed).image.tobytes() for seed in (1, 2, 3)] != before, option
    assert [backend.sample(seed).image.tobytes() for seed in (1, 2, 3)] == before


def test_altered_backends_are_refused(backend: Backend, tmp_path: Path) -> None:
    folder = tmp_path / backend.name
    backend.save(folder)
    path = next(path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="altered"):
        load_backend(folder)
    with pytest.raises(ArtifactError, match="holds no generator"):
        load_backend(tmp_path)


def test_deformed_scans_keep_image_and_labels_together(sources: Sources, context: FitContext) -> None:
    backend = DEFORM.fit(sources, DEFORM.Config.model_validate({"pairs": 18, "registration": REGISTRATION}), context)
    for seed in range(6):
        scan = backend.sample(seed)
        bright = (scan.image[0] > 0.6).astype(np.uint8) * 4
        assert dice(bright, scan.labels, 4) > 0.75
        assert scan.facts["min_jacobian"] > 0
        parent = sources.labelled.ids.index(scan.parents[0])
        assert sources.labelled.labels is not None
        assert not np.array_equal(scan.labels, sources.labelled.labels[parent, 0].numpy())


def test_registration_aligns(sources: Sources) -> None:
    data = sources.labelled
    assert data.labels is not None
    moving, fixed = [0, 1, 2], [3, 4, 5]
    control = register(data.images[moving], data.images[fixed], REGISTRATION)
    displacement = exponentiate(expand(control, data.shape))
    assert (jacobian_minimum(displacement) > 0).all()
    moved = warp_labels(data.labels[moving], displacement)
    before = np.mean(
        [dice(data.labels[a].numpy(), data.labels[b].numpy(), 4) for a, b in zip(moving, fixed, strict=True)]
    )
    after = np.mean([dice(m.numpy(), data.labels[b].numpy(), 4) for m, b in zip(moved, fixed, strict=True)])
    assert after > before + 0.05


def test_registration_of_a_pair_does_not_depend_on_the_batch(sources: Sources) -> None:
    images = sources.labelled.images
    together = register(images[[0, 1]], images[[2, 3]], REGISTRATION)
    alone = register(images[[1]], images[[3]], REGISTRATION)
    assert torch.allclose(together[1:], alone, atol=1e-3)


def test_local_correlation_ignores_gain_and_offset(sources: Sources) -> None:
    image = sources.labelled.images[:1] * 5
    assert float(local_correlation(image, 3 * image + 2, 5)) == pytest.approx(
        float(local_correlation(image, image, 5)), abs=0.05
    )
    assert float(bending(torch.ones(1, 3, 5, 5, 5))) == 0


def test_components_reproduce_the_covariance() -> None:
    data = torch.randn(30, 4, dtype=torch.float32) @ torch.randn(4, 12)
    components = components_of(data, 1.0)
    expected = torch.from_numpy(np.cov(data.numpy(), rowvar=False)).float()
    assert torch.allclose(components.T @ components, expected, atol=1e-3)
    assert len(components_of(data, 0.5)) < len(components)


def test_pairs_cross_subjects_and_spread_evenly(sources: Sources) -> None:
    moving, fixed = choose_pairs(sources, 18, seed=0)
    assert np.bincount(moving).tolist() == [3] * 6
    assert all(a != b for a, b in zip(moving, fixed, strict=True))
    assert len(set(zip(moving, fixed, strict=True))) == 18
    assert max(fixed) >= 6  # unlabelled targets
    alone = replace(sources, labelled=sources.labelled.subset(["a-0"]), unlabelled=None)
    with pytest.raises(DataError, match="only one"):
        choose_pairs(alone, 18, seed=0)


def test_warped_labels_of_the_identity_and_outside() -> None:
    labels = torch.randint(1, 4, (1, 1, 6, 6, 6), dtype=torch.uint8)
    assert torch.equal(warp_labels(labels, torch.zeros(1, 3, 6, 6, 6)), labels)
    with_background = labels * (torch.arange(6) > 2)
    shifted = torch.zeros(1, 3, 6, 6, 6)
    shifted[:, 0] = 4
    assert (warp_labels(with_background, shifted)[:, :, 2:] == 0).all()


def test_sources_refuse_leaks(sources: Sources) -> None:
    with pytest.raises(AuditError, match="both labelled and unlabelled"):
        Sources(sources.labelled, replace(sources.labelled, labels=None), (1, 4))
    with pytest.raises(DataError, match="must not carry masks"):
        Sources(sources.labelled, blobs(2, 3, "x"), (1, 4))
    with pytest.raises(DataError, match="label 9 is in no mask"):
        Sources(sources.labelled, None, (1, 9))
    with pytest.raises(AuditError, match="held out"):
        guard_split(sources.subjects, ["subject-u-1"])
    guard(["a-1", "u-1"], sources.ids)
    with pytest.raises(AuditError, match="'x-1'"):
        guard(["x-1"], sources.ids)
    guessed = blobs(4, 1, "u")
    trusted = replace(guessed, confidence=torch.full_like(guessed.foregrounds, 200, dtype=torch.uint8))
    with pytest.raises(DataError, match="confidence per voxel"):
        replace(sources, consensus=guessed)
    with pytest.raises(DataError, match="'x-0', which is not an unlabelled"):
        replace(sources, consensus=replace(trusted, ids=("x-0", "x-1", "x-2", "x-3")))
    pairs = replace(sources, consensus=trusted).pairs
    assert pairs.ids[:6] == sources.labelled.ids
    assert pairs.confidence is not None
    assert pairs.confidence[:6].unique().tolist() == [255]
    assert pairs.confidence[6:].unique().tolist() == [200]


def test_joint_history_is_kept(context: FitContext, sources: Sources) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    settings = JointConfig.model_validate(JointBackend.tiny)
    made: Any = JointBackend.fit(
        sources, settings, replace(context, log=lambda values, step: logged.append((values, step)))
    )
    assert [entry["step"] for entry in made.history] == [1, 2, 3]
    assert logged


@pytest.mark.parametrize("name", ["joint", "spade"])
def test_gans_learn_from_consensus_labels_and_several_channels(
    name: str, context: FitContext, sources: Sources, tmp_path: Path
) -> None:
    def doubled(data: Dataset, **changes: Any) -> Dataset:
        return replace(data, images=torch.cat([data.images, 1.5 - data.images], dim=1), **changes)

    guessed = blobs(4, 1, "u")
    assert sources.unlabelled is not None
    both = Sources(
        doubled(sources.labelled),
        doubled(sources.unlabelled),
        (1, 4),
        consensus=doubled(guessed, confidence=torch.full_like(guessed.foregrounds, 128, dtype=torch.uint8)),
    )
    logged: list[str] = []
    told = replace(context, log=lambda values, step: logged.extend(values))
    made: Backend
    if name == "spade":
        # Alarms that every short training raises, to see that they are kept.
        touchy = {"patience": 1, "warmup": 0.0, "diversity": 0.99, "accuracy": 0.51}
        made = SPADE.fit(both, SPADE.Config.model_validate({**SPADE.tiny, "alarms": touchy}), told)
        assert "labels/loss" in logged
        assert "generator/consistency" in logged
        assert made.alarms
        assert {f"alarm/{alarm.name}" for alarm in made.alarms} <= set(logged)
        assert made.sample(0).facts["alarms"] == [alarm.name for alarm in made.alarms]
    else:
        made = JointBackend.fit(both, JointConfig.model_validate(JointBackend.tiny), told)
        assert "discriminator/augmented" in logged
    made.save(tmp_path / name)
    loaded = load_backend(tmp_path / name, "cpu")
    assert list(loaded.alarms) == list(made.alarms)
    assert loaded.sample(1).image.shape == (2, *sources.labelled.shape)


def test_parts_of_different_trainings_are_refused(context: FitContext, sources: Sources, tmp_path: Path) -> None:
    one = SPADE.fit(sources, SPADE.Config.model_validate(SPADE.tiny), context)
    other = SPADE.fit(sources, SPADE.Config.model_validate(SPADE.tiny), replace(context, seed=1))
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    assert one.sha256 != other.sha256
    # The painter of the other training, then its network alone.
    for inside in ("painter", "painter/image"):
        mixed = tmp_path / inside.replace("/", "-")
        shutil.copytree(tmp_path / "one", mixed)
        shutil.rmtree(mixed / inside)
        shutil.copytree(tmp_path / "other" / inside, mixed / inside)
        with pytest.raises(ArtifactError, match=rf"{inside}: is of another training"):
            load_backend(mixed, "cpu")


def test_thick_slices_have_control_points_as_near_in_space(sources: Sources, context: FitContext) -> None:
    thick = replace(context, preprocess=context.preprocess.model_copy(update={"spacing": (1.0, 1.0, 3.0)}))
    quick = DEFORM.Config.model_validate({"pairs": 6, "registration": {**REGISTRATION.model_dump(), "iterations": 2}})
    backend: Any = DEFORM.fit(sources, quick, thick)
    # 16 x 20 x 12 voxels, a point every 6 along the fine axes and every 2 along the coarse one, and the borders.
    assert backend._labels._arrays["ways"].shape[2:] == (6, 7, 9)
    made = backend.sample(0)
    assert made.image.shape[1:] == made.labels.shape == sources.labelled.shape


def test_scans_with_rare_labels_are_moved_more_often() -> None:
    labels = torch.ones(10, 1, 2, 2, 2, dtype=torch.uint8)
    assert chances(labels) == pytest.approx(np.full(10, 0.1))
    labels[3, 0, 0, 0, 0] = 5  # one of ten: four times as often, not ten times
    labels[4:9, 0, 1, 1, 1] = 7  # five of ten: twice
    weights = np.array([1, 1, 1, 4, 2, 2, 2, 2, 2, 1])
    assert chances(labels) == pytest.approx(weights / weights.sum())
