"""Mosaics and curves: colours mean the same everywhere, nothing global, odd input drawn without warnings."""

from __future__ import annotations

import io
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from medgen.report.figures.colours import heat_picture
from medgen.report.figures.curves import interval_plot, learning_curve, training_curves
from medgen.report.figures.finding_slices import finding_slices
from medgen.report.figures.mosaic import LIMITS, comparison, mosaic, sample_pairs
from medgen.report.html import png
from medgen.volume import Grid, Volume


def pixels(figure: Figure) -> np.ndarray:
    return np.round(mpl.image.imread(io.BytesIO(png(figure)))[..., :3] * 255).astype(int)


@pytest.fixture
def image() -> Volume:
    grid = Grid((24, 28, 20), np.diag([-2.0, 2.0, 2.5, 1.0]))
    noise = np.random.default_rng(0).uniform(0.4, 0.6, grid.shape)
    return Volume(noise[None].astype(np.float32), grid)


def test_heat_is_transparent_without_score_and_below_the_scale():
    rgba = heat_picture(np.array([[np.nan, -3.0, 1.99, 2.0, 5.0, 8.0, 80.0]]), LIMITS)[0]
    assert (rgba[:3, 3] == 0).all()
    # A veil at the lower end, through which the scan shows; nearly opaque at the upper one.
    assert 0.1 < rgba[3, 3] < 0.4
    assert rgba[5, 3] > 0.9
    assert (np.diff(rgba[3:6, 3]) > 0).all()
    assert (rgba[5] == rgba[6]).all()
    # Brighter means more.
    assert (np.diff(rgba[3:6, :3].sum(axis=1)) > 0).all()


def test_overlay_appears_on_the_patients_side(image):
    heat = np.full(image.grid.shape, np.nan, np.float32)
    heat[2:8, :, :] = 7.0  # the first axis runs to the left: the patient's right
    drawn = pixels(mosaic(image, heatmap=image.with_data(heat), rows="axial", n_slices=1, crop=False))
    plain = pixels(mosaic(image, heatmap=image.with_data(heat * np.nan), rows="axial", n_slices=1, crop=False))
    changed = np.nonzero((np.abs(drawn - plain) > 60).any(axis=-1))[1]
    panel = drawn.shape[1] - 0.75 * 110
    assert changed.max() < 0.5 * panel


def test_truth_is_outlined_and_labels_are_coloured(image):
    mask = np.zeros(image.grid.shape, np.uint8)
    mask[8:16, 8:16, 6:14] = 1
    figure = mosaic(image, contour=image.with_data(mask), title="a", slices=image.grid.center, n_slices=3)
    cyan = np.abs(pixels(figure) - (0x38, 0xE8, 0xFF)).max(axis=-1) < 12
    assert cyan.sum() > 100
    figure = mosaic(image, labels=image.with_data(mask), label_names={1: "core"})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["core"]


def test_colour_scale_is_fixed_and_marked(image):
    for top in (3.0, 300.0):
        heat = np.linspace(0, top, image.data.size, dtype=np.float32).reshape(image.grid.shape)
        figure = mosaic(image, heatmap=image.with_data(heat), heatmap_label="z")
        bar = figure.axes[-1]
        assert bar.get_ylim() == LIMITS
        assert bar.get_ylabel() == "z"
    letters = {text.get_text() for axes in figure.axes[:-1] for text in axes.texts}
    assert set("RLAPSI") <= letters


def test_a_comparison_has_one_scale_for_darker_and_brighter(image):
    expected = image.with_data(np.full(image.grid.shape, 0.5, np.float32))
    difference = image.data - expected.data
    difference[0, 12:] = np.nan
    mask = (image.data > 0.59).astype(np.uint8)
    figure = comparison(
        image,
        heatmap=image.with_data(np.full(image.grid.shape, 3.0, np.float32)),
        expected=expected,
        difference=image.with_data(difference),
        contour=image.with_data(mask),
        point=image.grid.center,
        span=0.25,
        title="scan",
    )
    headings = [text.get_text() for text in figure.texts]
    assert headings == ["scan", "pseudo-healthy", "difference", "heat", "scan"]
    assert len(figure.axes) == 3 * 4 + 2
    assert figure.axes[-1].get_ylim() == (-0.25, 0.25)
    assert figure.axes[-2].get_ylim() == LIMITS
    # What was expected is drawn with the scan's grey scale.
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim()
    figure = comparison(image, heatmap=image.with_data(np.zeros(image.grid.shape)), point=image.grid.center)
    assert len(figure.axes) == 3 * 2 + 1


def test_a_slice_is_labelled_by_its_number_in_the_file():
    """The origin of a scan's world may lie far outside the head: its mm say nothing to a reader."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = -100
    volume = Volume(np.random.default_rng(0).random((1, 20, 20, 20), np.float32), Grid((20, 20, 20), affine))
    figure = mosaic(volume, rows="sagittal", n_slices=1, slices=(-70.0, 19.0, 19.0))
    assert "i 15" in {text.get_text() for text in figure.axes[0].texts}


def test_odd_scans_are_drawn(image):
    flat = image.with_data(np.zeros(image.grid.shape, np.float32))
    nothing = image.with_data(np.full(image.grid.shape, np.nan, np.float32))
    for scan in (flat, nothing):
        assert isinstance(mosaic(scan, heatmap=nothing, contour=flat, n_slices=2), Figure)
    two = Volume(np.concatenate([image.data, image.data]), image.grid)
    thin = Volume(np.ones((1, 30, 30, 1), np.float32), Grid((30, 30, 1), np.diag([1.0, 1, 5, 1])))
    assert isinstance(mosaic(two, channel=1, rows="axial, sagittal"), Figure)
    assert isinstance(mosaic(thin, n_slices=1), Figure)


def test_pairs(image):
    figure = sample_pairs([(image, image)] * 2, names=[("syn-1", "a"), ("syn-2", "b")], title="t")
    assert len(figure.axes) == 12
    assert "syn-1" in {text.get_text() for text in figure.texts}
    with pytest.raises(ValueError, match="at least one pair"):
        sample_pairs([])


def test_curves_pair_training_with_validation():
    history = [{"step": k, "loss": 1 / (k + 1), "kl": 2.0} for k in range(40)]
    history += [{"step": k, "val_loss": 1.0} for k in (10, 20)]
    figure = training_curves({"fold 0": history, "empty": []}, title="t")
    drawn = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in drawn] == ["loss", "kl"]
    assert {line.get_label() for line in drawn[0].lines} >= {"training", "validation"}
    assert png(figure)
    staged = [{"step": n, "codes/loss": 1 / n, "codes/validation": 2 / n} for n in range(1, 9)]
    (panel, _) = training_curves({"model": staged}).axes
    assert panel.get_title() == "codes/loss"
    assert len(panel.lines) == 2
    assert png(training_curves({}))
    assert png(training_curves({"a": [{"loss": float("nan")}, {"loss": float("inf")}]}))


def test_interval_and_learning_curves():
    items = [SimpleNamespace(estimate=k / 10, low=k / 10 - 0.05, high=k / 10 + 0.05) for k in range(3)]
    gap = SimpleNamespace(estimate=float("nan"), low=float("nan"), high=float("nan"))
    figure = interval_plot(["a", "b", "c", "d"], [*items, gap], "AP", reference=0.0, highlight=[0], title="t")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "d"]
    assert "not available" in {text.get_text() for text in axes.texts}
    assert png(figure)
    assert png(learning_curve([5, 10, 20], {"x": items, "y": [*items[:2], gap]}, ylabel="Dice"))
    with pytest.raises(ValueError, match="as many names"):
        interval_plot(["a"], items)
    with pytest.raises(ValueError, match="expected 3 intervals"):
        learning_curve([5, 10, 20], {"x": items[:2]})


def test_a_family_wise_finding_has_an_outline_of_its_own(image):
    heat = image.with_data(np.full(image.data.shape, 3, np.float32))
    marks = np.zeros(image.data.shape, np.uint8)
    marks[0, 4:9, 4:9, 4:9], marks[0, 14:19, 14:19, 4:9] = 1, 2
    points = [image.grid.to_world((6, 6, 6)), image.grid.to_world((16, 16, 6))]
    colours = {}
    for name, value in (("plain", np.minimum(marks, 1)), ("strong", marks)):
        contour = image.with_data(value)
        figure = finding_slices(image, heatmap=heat, contour=contour, points=points, captions=["1  here", "2  there"])
        colours[name] = {tuple(pixel) for pixel in pixels(figure).reshape(-1, 3)}
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == (["finding"] if name == "plain" else ["finding", "family-wise finding"])
        # Two rows of three slices, beside each other without and with heat.
        assert len(figure.axes) == 12
    green = tuple(int("7dff5c"[k : k + 2], 16) for k in (0, 2, 4))
    assert green in colours["strong"]
    assert green not in colours["plain"]
    with pytest.raises(ValueError, match="a caption each, found 2 and 1"):
        finding_slices(image, heatmap=heat, contour=heat, points=points, captions=["1"])
