"""The documentation site: it builds without a warning, a mistake in a page fails it, and it needs no network."""

from __future__ import annotations

import html
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytest.importorskip("zensical", reason="the extra docs is not installed")
sys.path.insert(0, str(SITE))
import commands  # noqa: E402
import configuration  # noqa: E402
import navigation  # noqa: E402
import pages  # noqa: E402
import python_api  # noqa: E402

sys.path.remove(str(SITE))


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(SITE))
    yield runpy.run_path(str(SITE / "__main__.py"), run_name="site")
    sys.path.remove(str(SITE))


@pytest.fixture(scope="module")
def built(program, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "docs"
    program["assemble"](ROOT, folder)
    assert program["build"](folder) == []
    return folder / "site"


def small_site(folder: Path, text: str) -> Path:
    """A site of two pages with the settings of the real one."""
    (folder / "pages" / "assets").mkdir(parents=True)
    (folder / "pages" / "README.md").write_text(text, encoding="utf-8")
    (folder / "pages" / "other.md").write_text("# Other\n\n## A place\n\nText.\n", encoding="utf-8")
    shutil.copyfile(SITE / "iframe-worker.js", folder / "pages" / "assets" / "iframe-worker.js")
    shutil.copyfile(SITE / "zensical.toml", folder / "zensical.toml")
    return folder


def test_a_sound_page_builds(program, tmp_path):
    text = "# Start\n\n[There](other.md#a-place), [here](#here).\n\n## Here\n\n* one\n* two\n"
    assert program["build"](small_site(tmp_path, text)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gone](gone.md)", "gone"),
        ("[no place](other.md#nowhere)", "nowhere"),
        ("[no place here](#nowhere)", "nowhere"),
        ("[a folder](folder/)", "folder"),
        ("![gone](gone.png)", "gone.png"),
        ('<a href="gone.html">raw</a>', "gone.html"),
        ('<img src="https://example.org/a.png">', "from the network"),
        ("Text\n* taken for text", "a list was taken for text"),
    ],
)
def test_a_mistake_in_a_page_fails_the_build(program, tmp_path, text, said):
    wrong = program["build"](small_site(tmp_path, f"# Start\n\n{text}\n"))
    assert said in "\n".join(wrong)


@pytest.mark.slow
def test_the_site_builds_and_leads_everywhere(built):
    assert (built / "index.html").is_file()
    found = json.loads((built / "search.json").read_text(encoding="utf-8"))
    indexed = {item["location"].partition("#")[0] for item in found["items"]}
    for page in ("docs/quick-start.html", "docs/glossary.html", "docs/reference/commands.html", "docs/faq.html"):
        assert page in indexed


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_search_works_from_the_file_system(built, tmp_path):
    page = built / "docs" / "quick-start.html"
    ask = (ROOT / "tests" / "docs" / "search.js").read_text(encoding="utf-8")
    copy = page.with_name("searched.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{ask}</script></body>"), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, f"file://{copy}"], check=True, capture_output=True, text=True, timeout=120)
    copy.unlink()
    state = re.search(r'data-found="([^"]*)"', done.stdout)
    assert state is not None, re.findall(r'data-failed="[^"]*"', done.stdout)
    assert "guides/anomaly.html?h=#the-pseudo-healthy-scan" in html.unescape(state[1])


def test_a_page_that_nothing_leads_to_is_named(tmp_path):
    for tab in navigation.TABS.values():
        for name in tab:
            page = tmp_path / (f"{name}one.md" if name.endswith("/") else name)
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text("# Title\n", encoding="utf-8")
    assert navigation.navigation(tmp_path)
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"docs/lost\.md"):
        navigation.navigation(tmp_path)


def test_every_key_of_every_configuration_is_documented():
    groups = configuration.every_group()
    assert len(groups) >= 40
    missing = [
        f"{kind.__module__}.{kind.__name__}.{key}" for kind in groups for key in configuration.undocumented(kind)
    ]
    assert missing == [], "say in the class's docstring, under Attributes, what these keys mean"


def test_every_key_of_every_model_is_documented():
    from medgen.models.catalogue import available, family_class

    kinds = [kind for name in available() for kind in (family_class(name).Settings, family_class(name).Sampling)]
    missing = [f"{kind.__module__}.{kind.__name__}.{key}" for kind in kinds for key in configuration.undocumented(kind)]
    assert missing == []


def test_a_key_without_a_word_is_found():
    from medgen.config import Config

    class Quiet(Config):
        """A group.

        Attributes:
            said: A number of steps.
        """

        said: int = 1
        unsaid: int = 2

    assert configuration.undocumented(Quiet) == ["unsaid"]


def test_the_pages_of_settings_hold_keys_kinds_and_defaults():
    made = configuration.pages()
    row = next(line for line in made["configuration/anomaly-run.md"].splitlines() if line.startswith("| `target_fpr`"))
    assert "number (> 0, < 1)" in row
    assert "`0.05`" in row
    assert "## anomaly.calibration" in made["configuration/anomaly-run.md"]
    for root, kind in configuration.roots().items():
        page = made[f"configuration/{root.replace(' ', '-')}.md"]
        assert [key for key in kind.model_fields if f"| `{key}` |" not in page] == []


def test_every_command_is_on_its_page_with_every_option():
    page = commands.page()
    from medgen.pipelines.cli.app import app

    assert "| `--out` `PATH` |" in page
    for name, _ in commands.every_command():
        shown = CliRunner().invoke(app, [*name.split()[1:], "--help"]).output
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        # Wrapped help has options at the start of a line only.
        offered = {option for line in shown.splitlines() for option in re.findall(r"^ +(?:-\w, )?(--[\w-]+)", line)}
        assert {option for option in offered - {"--help"} if f"`{option}`" not in section} == set(), name


def test_everything_on_the_page_of_python_has_a_docstring():
    assert python_api.undocumented() == []
    assert "### medgen.load" in python_api.page()
    assert "#### Volume.resample" in python_api.page()


def test_pages_read_the_same_on_a_code_host():
    assert pages.for_site("Text:\n* one\n  more\n* two\n\n```\na\n* b\n```") == (
        "Text:\n\n* one\n  more\n* two\n\n```\na\n* b\n```"
    )
    assert pages.for_site("---\na: 1\n---\n\n# Title\nText") == "# Title\n\n```yaml\na: 1\n```\nText"
    assert "* a → b" in pages.for_site('```mermaid\nflowchart LR\n  x["a"] --> y["b"]\n```')


@pytest.mark.parametrize(
    ("page", "mark"), [("glossary.md", "glossary"), ("decisions/README.md", "decisions"), ("guides/mlflow.md", "keys")]
)
def test_lists_made_from_the_code_are_as_the_code_is(page, mark):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    make = runpy.run_path(str(ROOT / "docs" / "architecture.py"))[mark]
    written = make(ROOT) if mark == "decisions" else make()
    assert f"<!-- {mark} -->\n{written}\n<!-- end" in text, "run python docs/architecture.py"


def test_the_glossary_is_that_of_reports():
    from medgen.report.glossary import GLOSSARY

    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert [term for term, said in GLOSSARY.items() if f"| {term} | {said} |" not in text] == []


def test_the_citation_has_the_version():
    import yaml

    from medgen import __version__

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__
    assert cited["authors"] == [{"name": "The medgen developers"}]


def shown_commands() -> list[tuple[str, str]]:
    """Every command line in a block of code of a page that users read, with the page."""
    listed = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    listed += [page for name in ("guides", "explained", "tutorials") for page in (ROOT / "docs" / name).rglob("*")]
    found = []
    for page in listed:
        if page.suffix == ".ipynb":
            cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
            lines = [line for line in text.splitlines() if line.startswith(("!medgen", "medgen "))]
        elif page.suffix == ".md":
            blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
            text = "\n".join(blocks).replace("\\\n", " ")
            lines = [line for line in text.splitlines() if line.startswith("medgen ")]
        else:
            continue
        found += [(page.name, line.lstrip("!").partition(" # ")[0].strip()) for line in lines]
    return found


def test_every_command_line_that_is_shown_exists():
    known = dict(commands.every_command())
    shown = shown_commands()
    assert len(shown) > 60
    wrong = []
    for page, line in shown:
        words = line.split()
        name = next((" ".join(words[:size]) for size in (3, 2) if " ".join(words[:size]) in known), None)
        if name is None:
            wrong.append(f"{page}: no such command: {line}")
            continue
        options = {
            option
            for _, _, item in commands.parameters(known[name].callback)
            for option in (getattr(item, "default", None), *(getattr(item, "param_decls", None) or ()))
            if isinstance(option, str)
        }
        given = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        wrong += [f"{page}: no such option: {option}: {line}" for option in given - options - {"--help"}]
    assert wrong == []
