"""The contests of reading, preparation, augmentation and registration do equal work; small and once."""

import pytest

from medgen.pipelines.bench.speed.catalogue import entries_of
from medgen.pipelines.bench.speed.contest import Contest, Figure, Settings


def entries(name, tmp_path):
    return list(entries_of(name)(Settings("cpu", 3, True, None, tmp_path)))


def contests(name, tmp_path):
    """Every contest of a benchmark, each contender's work done once."""
    found = []
    for entry in entries(name, tmp_path):
        assert isinstance(entry, Contest)
        assert entry.contenders[0].name == "medgen"
        for contender in entry.contenders:
            contender.work()
        found.append(entry)
    return found


def test_files_hold_the_same_voxels(tmp_path):
    pytest.importorskip("isal")
    found = contests("io", tmp_path)
    assert len(found) == 8
    for contest in found:
        rows = contest.equal()
        if contest.name.startswith("read"):
            assert {*rows["voxels that differ from the scan"].values()} == {0}
        else:
            assert rows["voxels that nibabel reads differently"]["medgen"] == 0
            assert rows["size beside nibabel's"]["medgen"] <= 1.05


@pytest.mark.filterwarnings("ignore")
def test_preparation_is_exact(tmp_path):
    pytest.importorskip("torchio")
    steps, _ = contests("preprocess", tmp_path)
    rows = steps.equal()
    assert rows["mean difference from exact"]["medgen"] <= 1e-3
    assert len({*rows["voxels"].values()}) == 1
    assert rows["mean"]["medgen"] == pytest.approx(rows["mean"]["MONAI"], rel=0.05)


@pytest.mark.filterwarnings("ignore")
def test_augmentation_leaves_the_brain_in_view(tmp_path):
    pytest.importorskip("torchio")
    pytest.importorskip("batchgeneratorsv2")
    (contest,) = contests("augment", tmp_path)
    rows = contest.equal()
    assert {*rows["labels"].values()} == {4}
    kept = rows["labelled voxels"]
    assert min(kept.values()) > 0.6 * kept["medgen"]


@pytest.mark.slow
def test_registrations_bring_labels_together(tmp_path):
    (contest,) = contests("registration", tmp_path)
    dice = contest.equal()["Dice, mean"]
    assert dice["medgen"] > dice["unregistered"] + 0.1
    assert all(value > dice["unregistered"] for name, value in dice.items() if name != "unregistered")


@pytest.mark.slow
def test_memory_of_a_training_from_disk_is_measured(tmp_path):
    figures = {entry.name: entry for entry in entries("data-path", tmp_path) if isinstance(entry, Figure)}
    (memory,) = (figure for name, figure in figures.items() if "memory" in name)
    assert 0 < memory.value < 4096
    assert not list(tmp_path.iterdir())
