import numpy as np
import pytest
import torch

from medgen import io
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError
from medgen.preprocessing.dataset import Batch, Dataset, prepare_dataset
from medgen.preprocessing.recipe import PreparedScan, Preprocess, Template
from medgen.volume import Grid, Volume

RECIPE = Preprocess(shape=(10, 12, 8), spacing=(2.0, 2.0, 2.0))


def write_cohort(folder, masks=True):
    rng = np.random.default_rng(0)
    grid = Grid((11, 13, 9), np.diag([2.0, 2.0, 2.0, 1.0]))
    rows = ["id,subject,image,mask"]
    for number in range(3):
        io.write(Volume(rng.random((1, *grid.shape), dtype=np.float32) + 1, grid), folder / f"c{number}.nii.gz")
        labels = np.zeros((1, *grid.shape), dtype=np.uint8)
        labels[0, 3:8, 3:9, 2:6] = number + 1
        io.write(Volume(labels, grid), folder / f"m{number}.nii.gz")
        mask = f"m{number}.nii.gz" if masks or number else ""
        rows.append(f"c{number},s{number},c{number}.nii.gz,{mask}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return load_cohort(folder / "manifest.csv")


def test_a_cohort_is_prepared_in_order(tmp_path):
    seen = []
    data, failures = prepare_dataset(
        write_cohort(tmp_path), RECIPE, progress=lambda done, total: seen.append((done, total))
    )
    assert failures == []
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert data.ids == ("c0", "c1", "c2")
    assert data.subjects == ("s0", "s1", "s2")
    assert data.images.shape == (3, 1, 10, 12, 8)
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == torch.uint8
    assert [int(labels.max()) for labels in data.labels] == [1, 2, 3]
    # The records share memory with the stack.
    assert np.shares_memory(data.prepared[1].image, data.images.numpy())
    batch = data.batch([2, 0], progress=0.5)
    assert torch.equal(batch.image, data.images[[2, 0]])
    assert batch.foreground.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.to("cpu").progress == 0.5


def test_a_bad_case_is_reported_and_left_out(tmp_path):
    manifest = write_cohort(tmp_path)
    (tmp_path / "c1.nii.gz").write_bytes(b"no image")
    data, failures = prepare_dataset(manifest, RECIPE)
    assert data.ids == ("c0", "c2")
    ((case, message),) = failures
    assert case == "c1"
    assert "c1.nii.gz" in message


def test_labels_need_a_mask_for_every_case(tmp_path):
    data, _ = prepare_dataset(write_cohort(tmp_path, masks=False), RECIPE)
    assert data.labels is None
    assert data.batch([0]).labels is None


def test_nothing_prepared_is_an_error(tmp_path):
    manifest = write_cohort(tmp_path)
    for number in range(3):
        (tmp_path / f"c{number}.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 3 cases"):
        prepare_dataset(manifest, RECIPE)


def made_up(n=3):
    names = tuple(f"c{k}" for k in range(n))
    return Dataset(names, names, torch.rand(n, 1, 4, 4, 4), torch.ones(n, 1, 4, 4, 4, dtype=torch.bool))


def test_subsets_keep_the_order_asked_for():
    data = made_up()
    part = data.subset(["c2", "c0"])
    assert part.ids == ("c2", "c0")
    assert torch.equal(part.images, data.images[[2, 0]])
    with pytest.raises(DataError, match="'c9' is not in the data set"):
        data.subset(["c9"])


def test_channels_are_parted_with_what_belongs_to_them():
    images = torch.rand(2, 3, 4, 4, 4)
    grid = Grid((4, 4, 4), np.eye(4))
    scales = ((0.0, 1.0), (5.0, 2.0), (7.0, 3.0))
    inside = np.ones((4, 4, 4), bool)
    prepared = tuple(PreparedScan(image.numpy(), inside, grid, grid, scales) for image in images)
    data = Dataset(("a", "b"), ("a", "b"), images, images[:, :1] >= 0, prepared=prepared)
    part = data.of_channels([2, 0])
    assert torch.equal(part.images, images[:, [2, 0]])
    assert [item.scale for item in part.prepared] == [((7.0, 3.0), (0.0, 1.0))] * 2
    np.testing.assert_array_equal(part.prepared[1].image, images[1, [2, 0]].numpy())
    template = Template(Volume(images[0].numpy(), grid), Volume(inside[None], grid))
    np.testing.assert_array_equal(template.of_channels([1]).image.data, images[0, [1]].numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ("a", "a")}, "twice"),
        ({"subjects": ("a",)}, "expected 2 images"),
        ({"images": torch.zeros(2, 4, 4, 4)}, "expected 2 images"),
        ({"labels": torch.zeros(2, 1, 4, 4, 5)}, "expected labels of shape"),
        ({"prepared": (None,)}, "expected 2 prepared"),
    ],
)
def test_parts_that_do_not_agree_are_refused(change, message):
    good = {
        "ids": ("a", "b"),
        "subjects": ("a", "b"),
        "images": torch.zeros(2, 1, 4, 4, 4),
        "foregrounds": torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool),
    }
    with pytest.raises(DataError, match=message):
        Dataset(**{**good, **change})


def test_a_batch_without_labels_moves_too():
    assert Batch(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).to("cpu").labels is None
