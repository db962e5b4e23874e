"""The viewer's page: what it holds, and what a browser makes of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from medgen.errors import ConfigError
from medgen.report.html import png
from medgen.report.viewer import layers, library
from medgen.report.viewer.layers import NOT_SCORED, Layer, thinned
from medgen.report.viewer.page import Place, Threshold, Viewer
from medgen.volume import Grid, Volume

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
installed = pytest.mark.skipif(bool(library.missing()), reason=library.missing() or "installed")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# A mirrored, permuted and oblique grid: i runs to the back, j to the left, k upwards, turned by some degrees.
TURN = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.15, -0.08), [3.0, -7.0, 11.0])
CROOKED = Grid((26, 30, 22), TURN @ np.array([[0, -2.0, 0, 30], [-2.5, 0, 0, 32], [0, 0, 3.0, -33], [0, 0, 0, 1]]))
PLAIN = Grid((30, 26, 22), np.array([[2.0, 0, 0, -29], [0, 2.5, 0, -31], [0, 0, 3.0, -31], [0, 0, 0, 1]]))


def viewer(grid: Grid, peak: tuple[int, int, int], **more) -> Viewer:
    """A ball of scan with one hot voxel and its neighbours."""
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    away = np.linalg.norm(world - grid.center, axis=-1)
    scan = np.where(away < 28, 100.0, 0.0).astype(np.float32)[None]
    near = np.linalg.norm(world - grid.to_world(peak), axis=-1)
    heat = np.where(away < 28, np.maximum(0, 7.5 - 0.5 * near), np.nan).astype(np.float32)[None]
    figure = Figure(figsize=(1, 1))
    given = {
        "title": "a < b & c",
        "verdict": "Says </script> nothing.",
        "scans": [Layer("scan", Volume(scan, grid), "scan", (0.0, 120.0))],
        "overlays": [Layer("heat", Volume(heat, grid), "heat", (2.0, 8.0))],
        "places": [
            Place("Finding 1", "brighter", tuple(map(float, grid.to_world(peak)))),
            Place("Middle", "-", tuple(map(float, grid.center))),
        ],
        "picture": png(figure),
        "threshold": Threshold(4.5, 2.0, 7.5, [(7.0, 0.05), (4.5, 0.5), (3.0, 2.0)]),
    }
    return Viewer(**{**given, **more})


def opened(page: Path, *, drawn: bool = True) -> tuple[dict[str, str], str, np.ndarray]:
    """The state of a page after it has settled: attributes of its root, its text, and its pixels if asked for."""
    chromium = [CHROMIUM, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    chromium += ["--ignore-gpu-blocklist", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    chromium += [f"--user-data-dir={page.parent}/profile", "--window-size=1200,800", "--virtual-time-budget=20000"]
    target = f"file://{page}"
    pixels = np.zeros((0, 0, 3), dtype=int)
    if drawn:
        shot = page.parent / "shot.png"
        subprocess.run([*chromium, f"--screenshot={shot}", target], check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    done = subprocess.run([*chromium, "--dump-dom", target], check=True, capture_output=True, text=True, timeout=120)
    root = re.search(r"<html([^>]*)>", done.stdout)
    assert root is not None
    state = {name: html.unescape(value) for name, value in re.findall(r'data-([a-z]+)="([^"]*)"', root.group(1))}
    return state, done.stdout, pixels


@installed
def test_a_page_holds_its_images_and_asks_for_nothing(tmp_path):
    viewer(PLAIN, (22, 13, 11)).write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>a &lt; b &amp; c</title>" in text
    assert "Says &lt;/script&gt; nothing." in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy.group(1)
    assert "http" not in policy.group(1)


@installed
@pytest.mark.parametrize("text", ["</script><b>", "<!--", "a & b"])
def test_texts_of_places_never_end_the_element_that_holds_them(text):
    page = viewer(PLAIN, (22, 13, 11), places=[Place(text, text, (1.0, 2.0, 3.0))]).html()
    found = re.search(r'<script type="application/json" id="about">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert json.loads(found.group(1))["places"] == [{"title": text, "text": text, "point": [1.0, 2.0, 3.0]}]


def test_heat_is_kept_to_a_hundredth_and_unscored_voxels_far_below(tmp_path):
    (heat,) = viewer(CROOKED, (20, 8, 11)).overlays
    (tmp_path / "heat.nii.gz").write_bytes(heat.encoded())
    read = nib.load(tmp_path / "heat.nii.gz")
    np.testing.assert_allclose(read.affine, CROOKED.affine, atol=1e-5)
    expected = np.nan_to_num(heat.volume.data[0], nan=NOT_SCORED)
    np.testing.assert_allclose(read.get_fdata(), expected, atol=0.0051)


@pytest.mark.parametrize("kind", ["scan", "difference"])
def test_scans_keep_their_values_and_nan_is_the_lowest_or_no_difference(tmp_path, kind):
    data = np.linspace(-1000, 3000, PLAIN.shape[0] * 26 * 22, dtype=np.float32).reshape(1, *PLAIN.shape)
    data[0, 0, 0, 0] = np.nan
    (tmp_path / "scan.nii.gz").write_bytes(Layer("scan", Volume(data, PLAIN), kind, (0, 1)).encoded())
    read = nib.load(tmp_path / "scan.nii.gz").get_fdata()
    np.testing.assert_allclose(read[1:], data[0, 1:], atol=0.5 * 4000 / 65534 + 1e-3)
    assert read[0, 0, 0] == pytest.approx(np.nanmin(data) if kind == "scan" else 0, abs=0.1)


def test_large_scans_are_thinned_along_their_finest_axes_and_voxels_keep_their_places(monkeypatch):
    monkeypatch.setattr(layers, "MOST_VOXELS", 26 * 30 * 11)
    data = np.arange(26 * 30 * 22, dtype=np.float32).reshape(1, 26, 30, 22)
    small = thinned(Volume(data, CROOKED))
    assert small.grid.shape == (26, 15, 22)
    np.testing.assert_array_equal(small.data[0, 3, 4, 5], data[0, 3, 8, 5])
    np.testing.assert_allclose(small.grid.to_world((3, 4, 5)), CROOKED.to_world((3, 8, 5)))


def test_no_hot_voxel_is_lost_where_voxels_are_left_out_and_its_place_leads_to_it(monkeypatch):
    monkeypatch.setattr(layers, "MOST_VOXELS", 26 * 30 * 11)
    data = np.zeros((1, *CROOKED.shape), dtype=np.float32)
    data[0, :, 20:] = np.nan
    data[0, 3, 9, 5] = 7
    small = thinned(Volume(data, CROOKED), hottest=True)
    assert small.data[0, 3, 4, 5] == 7
    assert np.isnan(small.data[0, :, 10:]).all()
    assert (small.data[0, :, :10] > 0).sum() == 1
    x, y, z = CROOKED.to_world((3, 9, 5)).tolist()
    np.testing.assert_allclose(layers.kept_point(CROOKED, (x, y, z)), small.grid.to_world((3, 4, 5)))


def test_without_the_package_the_reason_says_what_to_install(monkeypatch):
    def none(_: str) -> None:
        raise library.PackageNotFoundError

    monkeypatch.setattr(library, "distribution", none)
    library.library.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'medgen\[viewer\]'"):
        library.library()


def test_another_version_of_the_package_is_refused(monkeypatch):
    class Other:
        version = "3.0.0"

    monkeypatch.setattr(library, "distribution", lambda _: Other())
    assert "found 3.0.0" in library.missing()


@pytest.mark.slow
@installed
@browser
@pytest.mark.parametrize(("grid", "peak"), [(PLAIN, (8, 16, 9)), (CROOKED, (9, 22, 13)), (CROOKED, (15, 8, 9))])
def test_a_hot_place_is_jumped_to_and_drawn_on_its_side(tmp_path, grid, peak):
    viewer(grid, peak).write(tmp_path / "page.html")
    state, text, pixels = opened(tmp_path / "page.html")
    assert state["state"] == "ready", state
    # NiiVue's own reading of the heat under the cross: the peak, to the hundredth, where we said that it is.
    assert float(state["heat"]) == pytest.approx(7.5, abs=0.006)
    there = np.array([float(value) for value in state["point"].split()])
    np.testing.assert_allclose(there, grid.to_world(peak), atol=0.02)
    side = "R" if there[0] > 0 else "L"
    assert re.search(rf'id="where"[^>]*>{abs(there[0]):.1f} {side}, ', text)
    assert "From this heat on 0.50 false findings are expected in a healthy scan." in text
    # In the coronal picture, top left of the page: heat lies left of the ball's middle if it is in the right half.
    red = pixels[..., 0] - pixels[..., 1] > 60
    grey = (np.ptp(pixels, axis=-1) < 12) & (pixels[..., 0] > 60)
    top = np.zeros(red.shape, dtype=bool)
    top[60:360, :440] = True
    hot, ball = np.argwhere(red & top), np.argwhere(grey & top)
    assert len(hot) > 30
    assert (hot[:, 1].mean() < ball[:, 1].mean()) == (side == "R")


@pytest.mark.slow
@installed
@browser
def test_links_choose_place_threshold_scan_and_slices(tmp_path):
    made = viewer(PLAIN, (22, 13, 11))
    other = Layer("other", made.scans[0].volume, "difference", (-10.0, 10.0))
    viewer(PLAIN, (22, 13, 11), scans=[*made.scans, other]).write(tmp_path / "page.html")
    state, text, _ = opened(Path(f"{tmp_path}/page.html#place=2&z=7.2&scan=2&view=2"), drawn=False)
    assert state["state"] == "ready"
    np.testing.assert_allclose([float(v) for v in state["point"].split()], PLAIN.center, atol=1.6)
    assert "From this heat on fewer than 0.01 false findings are expected" in text
    chosen = re.findall(r'<button[^>]*role="radio"[^>]*aria-checked="true"[^>]*>([^<]*)<', text)
    assert chosen == ["other", "axial"]


@installed
def test_overlays_are_one_for_all_scans_or_one_for_each():
    made = viewer(PLAIN, (22, 13, 11))
    with pytest.raises(ValueError, match="an overlay for each of 1 scans, found 2"):
        viewer(PLAIN, (22, 13, 11), overlays=[*made.overlays, *made.overlays]).html()


@pytest.mark.slow
@installed
@browser
def test_labels_follow_the_scan_that_is_looked_at(tmp_path):
    near, far = (22, 13, 11), (8, 16, 9)
    scan = viewer(PLAIN, near).scans[0]

    def marked(peak, name):
        labels = np.zeros((1, *PLAIN.shape), dtype=np.uint8)
        labels[0, peak[0] - 2 : peak[0] + 3, peak[1] - 2 : peak[1] + 3, peak[2] - 2 : peak[2] + 3] = 3
        return Layer("labels", Volume(labels, PLAIN), "labels", (0.0, 3.0), {1: "other", 3: name})

    places = [Place("there", "", tuple(map(float, PLAIN.to_world(near))))]
    overlays = [marked(near, "tumour"), marked(far, "cyst")]
    page = viewer(PLAIN, near, scans=[scan, scan], overlays=overlays, places=places, threshold=None)
    page.write(tmp_path / "page.html")
    state, text, first = opened(tmp_path / "page.html")
    assert state["state"] == "ready", state
    assert re.search(r'id="where"[^>]*>[^<]*; tumour<', text)
    state, text, second = opened(Path(f"{tmp_path}/page.html#scan=2"))
    assert re.search(r'id="where"[^>]*>[^<]*; no label<', text)
    # The label's own green is drawn at two different places.
    green = [(shot[..., 1] - shot[..., 0] > 12) & (shot[..., 1] - shot[..., 2] > 5) for shot in (first, second)]
    assert all(mask.sum() > 100 for mask in green)
    assert (green[0] & green[1]).sum() < 0.2 * green[0].sum()
