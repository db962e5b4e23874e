"""A label that the model grid loses is told from one that no mask has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.volume import Grid, Volume


def test_a_label_that_vanishes_at_this_voxel_size_is_told_with_its_size(tmp_path: Path) -> None:
    labels = np.zeros((1, 16, 16, 16), dtype=np.uint8)
    labels[0, 4:12, 4:12, 4:12], labels[0, 8, 8, 8:10] = 1, 2
    grid = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
    io.write(Volume(labels, grid), tmp_path / "mask.nii.gz")
    io.write(Volume(labels.astype(np.float32), grid), tmp_path / "scan.nii.gz")
    case = Case("a", "a", (tmp_path / "scan.nii.gz",), tmp_path / "mask.nii.gz")
    manifest = Manifest("cohort", tmp_path, (case,), {1: "organ", 2: "nerve", 3: "cyst"})
    recipe = Preprocess(shape=(4, 4, 4), spacing=(8, 8, 8))
    image, seen = torch.zeros((1, 1, 4, 4, 4)), torch.zeros((1, 1, 4, 4, 4), dtype=torch.uint8)
    seen[0, 0, 1:3, 1:3, 1:3] = 1
    data = {"labelled": Dataset(("a",), ("a",), image, image >= 0, seen)}
    parts = CohortSplit(manifest, manifest.subset([]), manifest.subset([]))
    with pytest.raises(
        DataError, match=r"label 2 \(nerve\): has at most 16 mm³ .* 8 x 8 x 8 mm, whose voxels have 512 mm³"
    ):
        PreparedCohort(recipe, None, data, (1, 2), manifest, ()).sources(parts)
    with pytest.raises(DataError, match="label 3 is in no mask of the 1 training scans"):
        PreparedCohort(recipe, None, data, (1, 3), manifest, ()).sources(parts)
    assert PreparedCohort(recipe, None, data, (1,), manifest, ()).sources(parts).labels == (1,)
