"""Write the parts of pages that follow from the code: ``python docs/architecture.py``."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import Any

from medgen.pipelines import pretrain, train
from medgen.pipelines.anomaly import adapt, score
from medgen.pipelines.anomaly.stages import pipeline
from medgen.pipelines.augment.stages import AUGMENT, VALUE
from medgen.pipelines.explore import run as explore
from medgen.pipelines.stages import Pipeline
from medgen.report.glossary import GLOSSARY
from medgen.runs.keys import EVERY_RUN, Key

ROOT = Path(__file__).parents[1]


def folders(root: Path) -> str:
    """A table of all folders: the sentence of each ``__init__.py``, and its modules."""
    rows = ["| folder | what belongs there | modules |", "|---|---|---|"]
    for door in sorted(path for top in ("medgen", "pipelines") for path in (root / top).rglob("__init__.py")):
        said = (ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or "").splitlines()[0]
        said = re.sub(r"``([^`]*)``", r"`\1`", said)
        modules = ", ".join(f"`{path.stem}`" for path in sorted(door.parent.glob("*.py")) if path.stem != "__init__")
        rows.append(f"| `{door.parent.relative_to(root).as_posix()}/` | {said} | {modules} |")
    return "\n".join(rows)


def layers(root: Path) -> str:
    """The layers that ``make check`` holds, from top to bottom."""
    parser = configparser.ConfigParser()
    parser.read(root / ".importlinter", encoding="utf-8")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return "\n".join(["```", "pipelines", *(line.strip() for line in lines if line.strip()), "```"])


def pipelines() -> dict[str, Pipeline[Any]]:
    """Every pipeline by its command."""
    return {
        "anomaly run": pipeline(),
        "anomaly score": score.PIPELINE,
        "anomaly adapt": adapt.PIPELINE,
        "augment run": AUGMENT,
        "augment value": VALUE,
        "train": train.PIPELINE,
        "explore": explore.PIPELINE,
        "pretrain": pretrain.PIPELINE,
    }


def keys() -> str:
    """A table for each pipeline: the numbers of its runs in MLflow; and one of those that stages log of themselves."""
    head = ["| key | what it is | better |", "|---|---|---|"]
    tables = ["### Every run", "", *head, *(_key(key) for key in EVERY_RUN), ""]
    stages: dict[str, dict[str, Key]] = {}
    for name, own in pipelines().items():
        if own.summary_keys():
            tables += [f"### medgen {name}", "", *head, *(_key(key) for key in own.summary_keys()), ""]
        for stage in own.stages:
            stages.setdefault(stage.name, {}).update({key.name: key for key in stage.own_keys})
    tables += ["### Stages and their parts", "", "| stage | key | what it is |", "|---|---|---|"]
    tables += [f"| {stage} | `{key.name}` | {key.means} |" for stage, own in stages.items() for key in own.values()]
    return "\n".join(tables)


def _key(key: Key) -> str:
    return f"| `{key.name}` | {key.means} | {key.better} |"


def outputs() -> str:
    """A table for each pipeline: what its stages leave in the folder of a run."""
    tables = []
    for name, stages in pipelines().items():
        tables += [f"### medgen {name}", "", "| file | what it holds | in MLflow |", "|---|---|---|"]
        tables += [f"| `{item.name}` | {item.holds} | {'yes' if item.tracked else ''} |" for item in stages.outputs()]
        tables.append("")
    return "\n".join(tables).rstrip()


def decisions(root: Path) -> str:
    """A list of all decisions, by their titles."""
    rows = []
    for page in sorted((root / "docs" / "decisions").glob("[0-9]*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"* [{title}]({page.name})")
    return "\n".join(rows)


def glossary() -> str:
    """A table of the words that reports explain."""
    rows = [f"| {term} | {said} |" for term, said in sorted(GLOSSARY.items(), key=lambda item: item[0].lower())]
    return "\n".join(["| word | what it means |", "|---|---|", *rows])


def main() -> None:
    """Replace what stands between the marks of the pages."""
    written = {
        "architecture.md": {"layers": layers(ROOT), "folders": folders(ROOT)},
        "decisions/README.md": {"decisions": decisions(ROOT)},
        "glossary.md": {"glossary": glossary()},
        "explained/outputs.md": {"outputs": outputs()},
        "guides/mlflow.md": {"keys": keys()},
    }
    for name, parts in written.items():
        page = ROOT / "docs" / name
        text = page.read_text(encoding="utf-8")
        for mark, content in parts.items():
            new = f"<!-- {mark} -->\n{content}\n<!-- end of {mark} -->"
            text = re.sub(rf"<!-- {mark} -->\n.*?<!-- end of {mark} -->", lambda _, new=new: new, text, flags=re.S)  # type: ignore[misc]
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
