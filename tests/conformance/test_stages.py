"""Lists of stages: what a stage needs is made before it, and every file that it leaves has a name and a sentence."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medgen import io
from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.pipelines import train
from medgen.pipelines.anomaly import score
from medgen.pipelines.anomaly.stages import pipeline
from medgen.pipelines.augment.stages import AUGMENT, GENERATE, VALUE
from medgen.pipelines.explore import run as explore
from medgen.pipelines.stages import EVERY_RUN, Pipeline, Stage
from medgen.report.html import Report
from medgen.runs.context import Output, Results, start_run
from medgen.runs.folder import RunConfig, RunFolder
from medgen.volume import Grid, Volume
from tests.builders.run_outputs import undeclared

DOCS = Path(__file__).parents[2] / "docs"
LISTS = {
    "anomaly": pipeline(),
    "score": score.PIPELINE,
    "augment": AUGMENT,
    "generate": GENERATE,
    "value": VALUE,
    "train": train.PIPELINE,
    "explore": explore.PIPELINE,
}
STAGES = {f"{name}-{stage.name}": stage for name, stages in LISTS.items() for stage in stages.stages}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_is(name: str) -> None:
    stage = STAGES[name]
    assert stage.name.replace("-", "").isalnum()
    assert (type(stage).__doc__ or "").strip().endswith(".") or "Attributes:" in str(type(stage).__doc__)
    assert type(stage).__doc__ != Stage.__doc__
    assert not inspect.isabstract(type(stage))
    assert all(isinstance(kind, type) for kind in (*stage.needs, *stage.makes))
    for output in stage.outputs():
        assert output.holds.strip()
        assert not output.holds.endswith(".")
        assert not Path(output.name).is_absolute()
        assert ".." not in Path(output.name).parts


@pytest.mark.parametrize("name", LISTS)
def test_no_output_is_named_twice(name: str) -> None:
    names = [output.name for output in LISTS[name].outputs()]
    assert len(names) == len(set(names))
    assert {output.name for output in EVERY_RUN} <= set(names)


def test_pages_list_what_stages_leave() -> None:
    page = (DOCS / "explained" / "outputs.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "architecture.py"))["outputs"]() in page, "run python docs/architecture.py"


@pytest.fixture
def cohort_of_two(tmp_path: Path) -> tuple[Manifest, RunConfig]:
    folder = tmp_path / "cohort"
    for name in ("a", "b"):
        image = np.random.default_rng(len(name)).random((1, 6, 6, 6), dtype=np.float32)
        io.write(Volume(image, Grid((6, 6, 6), np.eye(4))), folder / f"{name}.nii.gz")
    manifest = load_cohort(folder).with_hashes(1)
    return manifest, RunConfig(data=folder, out=tmp_path / "run")


class _First(Stage[RunConfig]):
    """Makes a number."""

    name = "first"
    makes = (int,)

    def run(self, config: RunConfig, results: Results, run: Any) -> Iterable[Any]:
        """See the class."""
        (run.folder.out / "number.txt").write_text("3")
        return [3]

    def outputs(self) -> tuple[Output, ...]:
        """The number."""
        return (Output("number.txt", "a number", tracked=True), Output("absent.txt", "nothing"))

    def metrics(self, results: Results) -> dict[str, Any]:
        """The number."""
        return {"number": results[int]}

    def lines(self, results: Results, run: Any) -> list[str]:
        """The number."""
        return [f"number: {results[int]}"]


class _Second(_First):
    """Makes a text of it."""

    name = "second"
    needs = (int,)
    makes = (str,)

    def run(self, config: RunConfig, results: Results, run: Any) -> Iterable[Any]:
        """See the class."""
        return [str(results[int])]

    def outputs(self) -> tuple[Output, ...]:
        """Nothing."""
        return ()

    def report(self, report: Report, results: Results, run: Any) -> None:
        """The text."""
        report.section("Text", results[str])


def test_lists_that_cannot_run_are_refused_when_they_are_made() -> None:
    with pytest.raises(TypeError, match="'second' needs int, which no stage before it makes"):
        Pipeline([_Second(), _First()])
    with pytest.raises(TypeError, match="two stages are called 'first'"):
        Pipeline([_First(), _First()])


def test_an_output_reaches_report_metrics_console_and_mlflow(
    cohort_of_two: tuple[Manifest, RunConfig], tmp_path: Path
) -> None:
    manifest, config = cohort_of_two
    stages = Pipeline([_First(), _Second()], given=(type(manifest),))
    with start_run("test", config, manifest) as run:
        results = Results([manifest])
        stages.run(config, results, run)
        lines = stages.finish(config, Report("Test"), "- none", results, run, False)
    folder = RunFolder(config.out)
    assert lines == ["number: 3", "number: 3"]
    page = folder.report.read_text(encoding="utf-8")
    assert "number.txt" in page
    assert "a number" in page
    assert "absent.txt" not in page
    assert '"number": 3' in (folder.out / "metrics.json").read_text(encoding="utf-8")
    journal = (folder.out / "journal.jsonl").read_text(encoding="utf-8")
    assert '"path": "number.txt"' in journal
    assert '"name": "second"' in journal
    assert undeclared(folder.out, stages) == []
    (folder.out / "stray.txt").write_text("nobody named it")
    assert undeclared(folder.out, stages) == ["stray.txt"]


def test_results_are_kept_by_type() -> None:
    results = Results([1])
    again = results.having("text")
    again.add(2)
    assert (results[int], again[int], again[str], results.get(str)) == (1, 2, "text", None)
    with pytest.raises(KeyError):
        results[float]


def test_the_same_stages_run_again_under_other_names(cohort_of_two: tuple[Manifest, RunConfig]) -> None:
    manifest, config = cohort_of_two
    with start_run("test", config, manifest) as run:
        other = run.again("-n2")
        assert other.checkpoints("net").name == "net-n2"
        assert run.checkpoints("net").name == "net"
        with other.child("first") as child:
            assert child.stage.name == "first-n2"
        assert replace(run, seed=5).derive("a") != run.derive("a")
