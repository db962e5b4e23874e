import numpy as np
import pytest

from medgen.data.cases import Case
from medgen.data.masks import crop_of
from medgen.errors import GeometryError
from medgen.volume import Grid
from tests.builders.cohort_folders import GRID, SHAPE, labels, scan


def part(start, shape, affine=GRID.affine):
    moved = np.array(affine, float)
    moved[:3, 3] = moved[:3, :3] @ start + moved[:3, 3]
    return Grid(shape, moved)


def test_masks_cropped_to_their_extent_are_named_as_such(tmp_path):
    scan(tmp_path / "images/a.nii.gz")
    labels(tmp_path / "masks/a.nii.gz", part((1, 2, 3), (10, 10, 7)))
    case = Case("a", "a", (tmp_path / "images/a.nii.gz",), tmp_path / "masks/a.nii.gz")
    with pytest.raises(GeometryError) as caught:
        case.read_mask()
    assert (
        "shape 10x10x7 differs from 12x14x10 of images/a.nii.gz: it was cropped, and begins at voxel (1, 2, 3)"
        in str(caught.value)
    )


def test_what_is_a_crop():
    turned = np.array([[0, -2.0, 0, 5], [2, 0, 0, 1], [0, 0, 3, 2], [0, 0, 0, 1]])
    assert crop_of(part((2, 3, 4), (5, 5, 5), turned), Grid(SHAPE, turned)) == (2, 3, 4)
    for start, shape in (((1.5, 2, 3), (5, 5, 5)), ((-1, 0, 0), (5, 5, 5)), ((9, 0, 0), (5, 5, 5))):
        assert crop_of(part(start, shape), GRID) is None
    assert crop_of(Grid((5, 5, 5), np.diag([2, 2, 1.9, 1.0])), GRID) is None
    assert crop_of(Grid((5, 5, 5), np.diag([-2, 2, 2, 1.0])), GRID) is None
