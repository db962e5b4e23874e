"""The MONAI transform: in three places of a pipeline, in workers, and the documented examples as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medgen import synthesis
from medgen.errors import AuditError, DataError
from medgen.synthesis import FitContext, Sources, SyntheticDataset
from medgen.synthesis.backends import backend_class
from medgen.system import files
from medgen.transforms.foreground import foreground_mask
from tests.builders.labelled_scans import keep_filter, quick_filter

DOCS = Path(__file__).parents[3] / "docs" / "guides" / "on-the-fly.md"
KEYS = ("image", "label")
# LoadImaged tries every reader that MONAI has, and one of them complains that a GPU decoder is not installed.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_thick_slices: Callable[..., Path]) -> Path:
    """Runs and scans as the documentation names them."""
    folder = tmp_path_factory.mktemp("work")
    write_thick_slices(folder / "runs" / "augment" / "synthetic", n=5, prefix="syn-", seed=9)
    write_thick_slices(folder / "scans", n=6)
    rows = [{"case": f"case{n}", "subject": f"s{n}", "part": "test" if n == 5 else "labelled"} for n in range(6)]
    files.write_csv(folder / "runs" / "augment" / "splits.csv", rows, ("case", "subject", "part"))
    return folder


@pytest.fixture
def records(folder: Path) -> list[dict[str, str]]:
    return [
        {
            "image": str(folder / "scans" / "imagesTr" / f"case{n}_0000.nii.gz"),
            "label": str(folder / "scans" / "labelsTr" / f"case{n}.nii.gz"),
        }
        for n in range(5)
    ]


def pipeline(*parts: Any) -> Any:
    from monai.transforms import Compose

    return Compose(parts)


def loaders() -> tuple[Any, Any]:
    from monai.transforms import EnsureChannelFirstd, LoadImaged

    return LoadImaged(KEYS), EnsureChannelFirstd(KEYS)


def transform(folder: Path, prob: float = 1.0, **options: Any) -> Any:
    return synthesis.RandSyntheticd(KEYS, folder / "runs" / "augment" / "synthetic", prob, **options)


def test_file_names_arrays_and_prepared_scans_agree(folder: Path, records: list[dict[str, str]]) -> None:
    from monai.data import MetaTensor
    from monai.transforms import NormalizeIntensityd

    normal = NormalizeIntensityd("image")
    before = transform(folder)
    after = transform(folder)
    behind = transform(folder, prepare=pipeline(*loaders(), normal))
    for number, one in enumerate((before, after, behind)):
        steps = [*loaders(), normal]
        steps.insert((0, 2, 3)[number], one)
        # A new Compose seeds its transforms anew.
        result = pipeline(*steps).set_random_state(seed=4)(records[0])
        assert isinstance(result["image"], MetaTensor)
        assert torch.allclose(result["image"].affine, torch.diag(torch.tensor([2.0, 2, 5, 1], dtype=torch.float64)))
        assert set(result["label"].unique().tolist()) == {0, 2, 7, 30}
        if number == 0:
            first = result
        assert torch.equal(first["label"], result["label"])
        assert torch.allclose(first["image"], result["image"], atol=1e-3)


def test_arrays_take_the_scale_of_the_replaced_scan(folder: Path) -> None:
    item = SyntheticDataset(folder / "runs" / "augment" / "synthetic")[0]
    hounsfield = (item["image"] - 500) * 3
    data = {"image": hounsfield.numpy(), "label": item["label"].numpy().astype(np.uint8), "name": "kept"}
    result = transform(folder)(data)
    assert isinstance(result["image"], np.ndarray)
    assert result["label"].dtype == np.uint8
    assert result["name"] == "kept"
    inside = [foreground_mask(scan) for scan in (result["image"], hounsfield.numpy())]
    reached = np.percentile(result["image"][0][inside[0]], [1, 99])
    assert reached == pytest.approx(np.percentile(hounsfield.numpy()[0][inside[1]], [1, 99]), rel=1e-3)
    own = transform(folder, match=False)(data)["image"]
    assert own.min() > 0
    with pytest.raises(DataError, match="put it after EnsureChannelFirstd"):
        transform(folder)({**data, "image": hounsfield[0].numpy()})
    with pytest.raises(DataError, match="the key of the image and that of the label"):
        synthesis.RandSyntheticd(("image",), folder / "runs" / "augment" / "synthetic")


@pytest.mark.parametrize("library", ["torch", "monai"])
def test_workers_draw_their_own_streams_and_the_same_ones_again(folder: Path, library: str) -> None:
    import monai.data

    def draw() -> list[str]:
        torch.manual_seed(1)
        random = pipeline(transform(folder, 0.5)).set_random_state(seed=2)
        real = [{"image": "real", "label": "real"}] * 40
        kind = torch.utils.data.DataLoader if library == "torch" else monai.data.DataLoader
        loader = kind(monai.data.Dataset(real, random), batch_size=1, num_workers=2)
        return [Path(batch["image"][0]).name for batch in loader]

    names = draw()
    assert names == draw()
    assert names[0::2] != names[1::2]  # the two workers take turns
    assert 8 < names.count("real") < 32


def test_it_is_for_training_only(folder: Path, records: list[dict[str, str]]) -> None:
    held_out = {key: value.replace("case0", "case5") for key, value in records[0].items()}
    with pytest.raises(AuditError, match="'case5' is held out"):
        transform(folder, 0.5)(held_out)
    # MONAI's Compose wraps what a transform raises.
    with pytest.raises(RuntimeError) as caught:
        pipeline(*loaders(), transform(folder, 0.5))(held_out)
    assert isinstance(caught.value.__cause__, AuditError)
    with pytest.raises(AuditError, match="the generators learnt from it"):
        transform(folder, validation=["s3"])
    silent = transform(folder, 0.5)
    silent.eval()
    assert silent(held_out) == held_out
    ending = transform(folder, 1.0)
    ending.set_progress(10, 10)
    assert ending(records[0]) == records[0]


def test_the_documented_examples_run(
    folder: Path,
    records: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    sources: Sources,
    context: FitContext,
) -> None:
    import monai

    deform = backend_class("deform")
    settings = deform.Config.model_validate({"pairs": 6, "registration": {"spacing": 6, "iterations": 2, "window": 5}})
    deform.fit(sources, settings, context).save(folder / "runs" / "augment" / "model" / "deform")
    keep_filter(quick_filter(sources), context, folder / "runs" / "augment" / "model" / "filter")
    monkeypatch.chdir(folder)
    network = torch.nn.Conv3d(1, 31, 3, padding=1)
    mine = SyntheticDataset(
        folder / "scans", lambda item: (item["image"][:, :16, :16, :8], item["label"][0, :16, :16, :8])
    )
    names: dict[str, Any] = {
        "torch": torch,
        "monai": monai,
        "records": records,
        "network": network,
        "optimiser": torch.optim.SGD(network.parameters(), lr=1e-6),
        "epochs": 2,
        "my_training_set": torch.utils.data.Subset(mine, range(4)),
        "my_preprocessing": mine.transform,
        "my_validation_ids": ["case5"],
    }
    before = network.weight.detach().clone()
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
        if "loss" not in block:
            continue
        assert torch.isfinite(names["loss"])
        assert not torch.equal(network.weight, before)
        before = network.weight.detach().clone()
    image, label = names["live"][3]
    assert image.shape == (1, 16, 16, 8)
    assert label.shape == (16, 16, 8)
    assert len(names["train"]) == 4
