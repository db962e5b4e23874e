"""Synthetic scans in a user's own script: what is handed out, how often, twice the same, and never for validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from medgen.errors import ArtifactError, AuditError, DataError
from medgen.seeds import derive
from medgen.synthesis import (
    FitContext,
    LiveDataset,
    MixedDataset,
    MixedStream,
    Sources,
    SyntheticDataset,
    match_intensities,
)
from medgen.synthesis.backends import backend_class
from medgen.system import files
from tests.builders.labelled_scans import keep_filter, quick_filter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_thick_slices: Callable[..., Path]) -> Path:
    """What matters here of the folder of an augment run: five synthetic scans, and who was held out."""
    folder = tmp_path_factory.mktemp("runs") / "augment"
    write_thick_slices(folder / "synthetic", n=5, prefix="syn-", seed=9)
    write_thick_slices(folder / "real", n=4)
    split = [(f"case{n}", f"s{n}", part) for n, part in enumerate(["labelled", "unlabelled", "validation", "test"])]
    rows = [dict(zip(("case", "subject", "part"), row, strict=True)) for row in split]
    files.write_csv(folder / "splits.csv", rows, ("case", "subject", "part"))
    return folder


class Real(torch.utils.data.Dataset[Any]):
    """Tells by its values that it is real."""

    ids = ("case0", "case1")

    def __init__(self, n: int = 40) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.full((1, 20, 24, 12), 0.01 * index)
        image[:, 8:12] += 1
        return image, (image > 0.9).long()


def as_real(item: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """A user's preprocessing."""
    image = item["image"]
    return (image - image.mean()) / image.std(), (item["label"] > 0).long()


def mixed(run: Path, p_syn: float = 0.5, **options: Any) -> MixedDataset:
    return MixedDataset(Real(), SyntheticDataset(run / "synthetic", as_real), p_syn, seed=3, **options)


def synthetic_share_of(data: Any) -> list[bool]:
    """Which items are synthetic: only those are standardised."""
    return [bool(abs(float(image.mean())) < 1e-4) for image, _ in data]


def test_items_have_the_real_numbers_and_geometry(run: Path) -> None:
    data = SyntheticDataset(run / "synthetic")
    assert len(data) == 5
    item = data[2]
    assert item["id"] == "syn-2"
    assert item["image"].shape == (1, 20, 24, 12)
    assert item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.int64
    assert set(item["label"].unique().tolist()) == {0, 2, 7, 30}
    assert np.allclose(np.diag(item["affine"]), [2, 2, 5, 1])
    names = SyntheticDataset(run / "synthetic", load=False)[2]
    assert names["id"] == "syn-2"
    assert Path(names["image"]).name == "syn-2_0000.nii.gz"
    assert Path(names["label"]).is_file()


def test_renumbered_labels_get_their_own_numbers_back(tmp_path: Path, write_thick_slices: Callable[..., Path]) -> None:
    folder = write_thick_slices(tmp_path / "synthetic", n=1, labels=(1, 2, 3))
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "original_labels": {"1": 2, "2": 3, "3": 1035}}))
    item = SyntheticDataset(folder)[0]
    plain = {0: 0, 1: 2, 2: 3, 3: 1035}
    (folder / "dataset.json").write_text(json.dumps(description))
    for number, original in plain.items():
        assert torch.equal(item["label"] == original, SyntheticDataset(folder)[0]["label"] == number)
    (folder / "dataset.json").write_text(json.dumps({**description, "original_labels": {"1": 2, "2": 3, "3": 1035}}))
    with pytest.raises(DataError, match="label 2 of the real masks is 1"):
        SyntheticDataset(folder, load=False)


def test_the_share_follows_p_syn_and_progress(run: Path) -> None:
    assert not any(synthetic_share_of(mixed(run, 0.0)))
    assert all(synthetic_share_of(mixed(run, 1.0)))
    data = mixed(run, 0.5)
    shares = [np.mean(synthetic_share_of(data)) for _ in range(6)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.13)  # 240 draws: four standard errors
    assert len(set(shares)) > 1
    data.set_progress(7, 8)
    assert data.probability == pytest.approx(0.25)
    data.set_progress(8, 8)
    assert not any(synthetic_share_of(data))
    data.set_progress(0)
    data.eval()
    assert not any(synthetic_share_of(data))
    with pytest.raises(DataError, match="probability"):
        mixed(run, 1.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_torch_loop_is_repeatable_and_no_two_epochs_are_alike(run: Path, workers: int) -> None:
    def train() -> tuple[list[list[bool]], float]:
        torch.manual_seed(0)
        data = mixed(run, 0.5)
        loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)
        network = torch.nn.Conv3d(1, 2, 3, padding=1)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        epochs = []
        for epoch in range(2):
            data.set_progress(epoch, 2)
            epochs.append([])
            for image, label in loader:
                loss = torch.nn.functional.cross_entropy(network(image), label[:, 0])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                epochs[-1] += [bool(abs(float(one.mean())) < 1e-4) for one in image]
        return epochs, loss.item()

    (first, loss), (second, again) = train(), train()
    assert first == second
    assert loss == again
    assert first[0] != first[1]
    assert all(0 < sum(epoch) < len(epoch) for epoch in first)


def test_workers_that_stay_see_the_progress(run: Path) -> None:
    data = mixed(run, 1.0)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    assert all(synthetic_share_of(loader))
    data.set_progress(1, 1)
    assert not any(synthetic_share_of(loader))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from (Real()[index] for index in range(30))


def test_a_stream_is_mixed_too(run: Path) -> None:
    def epochs() -> list[list[bool]]:
        data = MixedStream(Stream(), SyntheticDataset(run / "synthetic", as_real), 0.5, seed=1)
        return [synthetic_share_of(data) for _ in range(2)]

    first = epochs()
    assert first == epochs()
    assert first[0] != first[1]
    assert all(5 < sum(epoch) < 25 for epoch in first)


def test_validation_is_guarded_in_both_directions(run: Path, tmp_path: Path) -> None:
    synthetic = SyntheticDataset(run / "synthetic", as_real)
    with pytest.raises(AuditError, match=r"'case2' is held out .*training scans only"):
        MixedDataset(Real(), synthetic, ids=["case0", "case2"])
    records = [{"image": f"somewhere/case{n}_0000.nii.gz", "label": f"masks/case{n}.nii.gz"} for n in (0, 3)]
    with pytest.raises(AuditError, match="'case3'"):
        MixedDataset(records, synthetic)
    for name in ("case1", "s0"):
        with pytest.raises(AuditError, match=rf"'{name}' is to be validated on, but the generators learnt from it"):
            mixed(run, validation=[name])
    mixed(run, validation=["case2", "s3", "somebody else"])
    lost = SyntheticDataset(run / "synthetic", splits=run / "splits.csv")
    lost.origin = None
    with pytest.raises(DataError, match="validation cannot be checked"):
        MixedDataset(Real(), lost, validation=["case2"])
    with pytest.raises(DataError, match=r"splits.csv of the augment run"):
        SyntheticDataset(run / "synthetic", splits=tmp_path / "none.csv")


def test_intensities_take_the_scale_of_the_other_scan() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((2, 16, 16, 16), np.float32)
    image[:, 3:13, 3:13, 3:13] = rng.uniform(0.2, 1.0, (2, 10, 10, 10))
    wanted = image[:, ::-1] * 800 - 1000
    result = match_intensities(image, wanted)
    # A linear map of the same values: exact.
    assert np.allclose(result, image * 800 - 1000, atol=0.1)
    with pytest.raises(DataError, match="equal numbers of channels"):
        match_intensities(image, wanted[:1])


def test_live_samples_are_the_generators_own(run: Path, sources: Sources, context: FitContext) -> None:
    deform = backend_class("deform")
    settings = deform.Config.model_validate({"pairs": 6, "registration": {"spacing": 6, "iterations": 2, "window": 5}})
    backend = deform.fit(sources, settings, context)
    backend.save(run / "model" / "deform")
    live = LiveDataset(run / "model" / "deform", seed=5, filtered=False)
    first, again, other = live[0], LiveDataset(run / "model" / "deform", seed=5, filtered=False)[0], live[1]
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    assert set(first["label"].unique().tolist()) == {0, 1, 4}
    assert np.allclose(np.diag(first["affine"]), [2, 2, 5, 1])
    short = LiveDataset(run / "model" / "deform", seed=5, length=3, filtered=False)
    in_workers = [*DataLoader(short, None, num_workers=2)]
    assert torch.equal(in_workers[0]["image"], first["image"])
    parents: list[str] = []

    def accept(scan: Any) -> bool:
        parents.append(scan.parents[0])
        return len(parents) == 3

    LiveDataset(run / "model" / "deform", filtered=False, accept=accept)[0]
    assert len(parents) == 3
    with pytest.raises(DataError, match="no usable sample in 2 attempts"):
        LiveDataset(run / "model" / "deform", filtered=False, accept=lambda scan: False, attempts=2)[0]
    with pytest.raises(DataError, match="have no files"):
        live.record(0)


def test_live_samples_pass_the_filter_of_their_run(run: Path, sources: Sources, context: FitContext) -> None:
    deform = backend_class("deform")
    settings = deform.Config.model_validate({"pairs": 6, "registration": {"spacing": 6, "iterations": 2, "window": 5}})
    backend = deform.fit(sources, settings, context)
    backend.save(run / "model" / "deform")
    with pytest.raises(ArtifactError, match="no filter/"):
        LiveDataset(run / "model" / "deform", seed=5)[0]
    filters = quick_filter(sources)
    keep_filter(filters, context, run / "model" / "filter")
    plain = LiveDataset(run / "model" / "deform", seed=5, filtered=False)
    drawn = [backend.sample(derive(5, "live", 0, attempt)) for attempt in range(10)]
    first = next(n for n, scan in enumerate(drawn) if filters.check(scan, derived=True).accepted)
    item = LiveDataset(run / "model" / "deform", seed=5)[0]
    assert np.array_equal(item["image"].numpy(), drawn[first].image)
    assert np.array_equal(plain[0]["image"].numpy(), drawn[0].image)
    keep_filter(replace(filters, agreement_bound=1.5), context, run / "model" / "filter")
    with pytest.raises(DataError, match=r"no usable sample in 10 attempts \(label agreement"):
        LiveDataset(run / "model" / "deform", seed=5)[0]
