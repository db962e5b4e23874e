import json

from medgen.synthesis.export.layouts import About, describe, renumbered_regions

BASE = About("c", "MR", {1: "rest of whole", 2: "core"}, 2, "stamp", ("deform",), (("syn-1", "deform", "stamp"),))


def written(out, **fields):
    out.mkdir()
    describe(out, "nnunet", About(**{**vars(BASE), **fields}))
    return json.loads((out / "dataset.json").read_text())


def test_channels_and_regions_of_the_cohort_are_kept(tmp_path):
    kept = written(
        tmp_path / "a",
        channel_names=("CT", "PET"),
        regions={"whole": (1, 2), "core": (2,)},
        class_order=(1, 2),
    )
    assert kept["channel_names"] == {"0": "CT", "1": "PET"}
    assert kept["labels"] == {"background": 0, "whole": [1, 2], "core": 2}
    assert kept["regions_class_order"] == [1, 2]


def test_without_them_the_modality_and_the_labels_are_written(tmp_path):
    plain = written(tmp_path / "a")
    assert plain["channel_names"] == {"0": "MR", "1": "MR"}
    assert plain["labels"] == {"background": 0, "rest of whole": 1, "core": 2}
    assert "regions_class_order" not in plain
    # Names of other channels than there are name none.
    assert written(tmp_path / "b", channel_names=("CT",))["channel_names"] == {"0": "MR", "1": "MR"}


def test_regions_in_other_numbers():
    regions, order = {"whole": (10, 20, 30), "core": (20, 30), "left out": (40,)}, (10, 20, 40)
    assert renumbered_regions(regions, order, {10: 1, 30: 2}) == ({"whole": (1, 2), "core": (2,)}, (1, 2))
    assert renumbered_regions({}, (), {1: 1}) == ({}, ())
