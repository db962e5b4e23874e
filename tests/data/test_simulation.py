import filecmp

import numpy as np
import pytest
from scipy import ndimage

from medgen.data.cards.card import lint
from medgen.data.layouts.detect import load_cohort
from medgen.data.mni_template import brain_template
from medgen.data.simulation import SubjectDrawer, cohort_grid, simulate
from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("cohort") / "out", 3, seed=0, spacing=5.0)


def test_template_is_the_mni_brain():
    template = brain_template()
    assert template.grid.axcodes == "RAS"
    assert template.grid.spacing == (1.0, 1.0, 1.0)
    total = template.csf + template.gm + template.wm
    assert np.allclose(total[template.brain > 0], 1, atol=1e-5)
    assert not total[template.brain == 0].any()
    # T1 orders the tissues.
    means = [float((template.t1 * p).sum() / p.sum()) for p in (template.csf, template.gm, template.wm)]
    assert means == sorted(means)
    # Adults' lateral ventricles together hold about 10 to 30 ml; both sides are alike.
    points = template.grid.to_world(np.argwhere(template.ventricles > 0))
    assert 10_000 < len(points) < 30_000
    assert 0.45 < (points[:, 0] < 0).mean() < 0.55
    with pytest.raises(ValueError, match="read-only"):
        template.t1[0, 0, 0] = 1


def test_cohort_can_be_loaded_again(cohort):
    assert [case.id for case in cohort] == ["sim-0000", "sim-0001", "sim-0002"]
    assert sorted(path.name for path in cohort.root.iterdir()) == [
        "card.md",
        "images",
        "manifest.csv",
        "manifest.json",
        "masks",
    ]
    loaded = load_cohort(cohort.root)
    assert loaded.digest() == cohort.digest()
    assert loaded.labels == {1: "CSF", 2: "GM", 3: "WM"}
    assert lint(cohort.root / "card.md") == []


def test_images_and_labels_fit(cohort):
    for case in cohort:
        image, labels = case.read_image(), case.read_mask()
        assert image.grid.axcodes == "RAS"
        assert image.grid.spacing == (5.0, 5.0, 5.0)
        data, label = image.data[0].astype(float), labels.data[0]
        assert np.array_equal(data > 0, label > 0)
        assert set(np.unique(label)) == {0, 1, 2, 3}
        inside = foreground_mask(image.data)
        assert np.mean(inside == (label > 0)) > 0.99
        # T1 weighting, and a margin that no brain reaches.
        means = [np.median(data[label == value]) for value in (1, 2, 3)]
        assert means == sorted(means)
        assert not label[[0, -1]].any()
        assert not label[:, [0, -1]].any()
        assert not label[..., [0, -1]].any()
        litres = (label > 0).sum() * image.grid.voxel_volume / 1e6
        assert 1.3 < litres < 2.5


def test_subject_depends_on_seed_and_index_only(cohort, tmp_path):
    one = simulate(tmp_path / "one", 1, seed=0, spacing=5.0)
    assert filecmp.cmp(one.cases[0].images[0], cohort.cases[0].images[0], shallow=False)
    assert filecmp.cmp(one.cases[0].mask, cohort.cases[0].mask, shallow=False)
    other = simulate(tmp_path / "other", 1, seed=1, spacing=5.0)
    hashes = {case.sha256[manifest.key(case.images[0])] for manifest in (cohort, other) for case in manifest}
    assert len(hashes) == 4


def test_warps_are_diffeomorphic_and_ventricles_vary():
    drawer = SubjectDrawer(cohort_grid(6.0))
    subjects = [drawer.draw(3, index) for index in range(12)]
    assert min(subject.least_jacobian for subject in subjects) > 0
    sizes = [subject.ventricle_scale for subject in subjects]
    assert np.std(sizes) > 0.08
    assert 0.4 < min(sizes) < 1 < max(sizes) < 3


def test_velocity_that_folds_is_shrunk(monkeypatch):
    from medgen.data import simulation

    monkeypatch.setattr(simulation, "_SCALES", ((16.0, 30.0),))
    subject = SubjectDrawer(cohort_grid(8.0)).draw(0, 0)
    assert subject.least_jacobian >= simulation._LEAST_JACOBIAN


def test_larger_velocity_gives_larger_ventricles():
    from medgen.transforms.fields import exponentiate

    drawer = SubjectDrawer(cohort_grid(4.0))
    template = drawer.template
    volumes = []
    for size in (-1.0, 0.0, 1.0, 2.0):
        displacement = exponentiate(size * drawer._expansion)[0].numpy()
        points = np.stack(np.meshgrid(*[np.arange(float(n)) for n in drawer._field_grid.shape], indexing="ij"))
        world = drawer._field_grid.to_world(np.moveaxis(points + displacement, 0, -1))
        voxels = np.moveaxis(template.grid.to_voxel(world), -1, 0)
        volumes.append(ndimage.map_coordinates(template.ventricles, voxels, order=1).sum())
    assert volumes == sorted(volumes)


def test_any_spacing():
    grid = cohort_grid((6.0, 8.0, 10.0))
    assert grid.spacing == (6.0, 8.0, 10.0)
    subject = SubjectDrawer(grid).draw(0, 0)
    assert subject.image.grid.same_as(grid)
    assert (subject.labels.data > 0).sum() > 1000


@pytest.mark.parametrize(("arguments", "message"), [({"n": 0}, "1 to 9999"), ({"spacing": 0.1}, "0.5 to 16")])
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        simulate(tmp_path / "out", **{"n": 1, "seed": 0, "spacing": 4.0, **arguments})
    assert not (tmp_path / "out").exists()


def test_full_folders_are_left_alone_and_failures_leave_nothing(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        simulate(out, 1, 0, 8.0)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "other", 1, 0, 8.0, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
