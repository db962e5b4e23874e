"""The intended use of what a run has trained, under the headings that regulators ask for.

Headings follow Regulation (EU) 2024/1689 (Artificial Intelligence Act), Article 13(3) and Annex IV, and what the FDA
calls indications for use (21 CFR 814.20(b)(3)(i)). What stands under them is made of the fields of the run. The text
claims no conformity with either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medgen.data.cards.form import NOTICE
from medgen.errors import DataError
from medgen.report.cards.facts.catalogue import fact_of
from medgen.report.cards.records import ARTIFACT, METRICS, Kind, Reader, RunRecords, well_formed
from medgen.report.methods.text import count, listed

UNKNOWN = "Not measured by this run."


@dataclass(frozen=True)
class Section:
    """One heading of the text.

    Attributes:
        heading: What it is called.
        asked_by: Where it is asked for; empty if nowhere.
        lines: One sentence or a few in each.
    """

    heading: str
    asked_by: str
    lines: tuple[str, ...]


_PURPOSE: dict[Kind, str] = {
    "anomaly detector": "Marks places of a scan that are unlike the healthy scans it was calibrated on, so that a "
    "reader looks at them; made to study methods and cohorts.",
    "generators of labelled scans": "Makes synthetic scans with label maps, to train segmentation models beside real "
    "scans; made to study methods and cohorts.",
    "generative model": "Makes synthetic scans, or gives scores of a scan a model of what is usual; made to study "
    "methods and cohorts.",
    "pretrained model": "A start for the training of another model: it has seen the shapes of label maps under random "
    "contrasts, and no intensities of patients.",
}
_INPUTS: dict[Kind, str] = {
    "anomaly detector": "One scan of one person, as NIfTI, NRRD, MetaImage or a DICOM series, of the modality, "
    "contrast and field of view of the healthy scans below.",
    "generators of labelled scans": "Nothing but a seed and a number of scans.",
    "generative model": "Nothing but a seed for new scans; a scan like those below where it is compared with the "
    "model.",
    "pretrained model": "The configuration of a training that begins with its weights.",
}
_NOT_FOR: dict[Kind, tuple[str, ...]] = {
    "anomaly detector": (
        "Diagnosis, triage, treatment or any decision about a patient.",
        "Ruling disease out: what is not marked is not shown to be healthy.",
        "Scans of another protocol, scanner or population than the healthy scans, before it is adapted to them and "
        "measured there.",
    ),
    "generators of labelled scans": (
        "Any decision about a patient.",
        "Testing or validating a model, or training without real scans.",
        "Evidence about a disease, a scanner or a group of people.",
    ),
    "generative model": (
        "Any decision about a patient.",
        "Evidence about a disease, a scanner or a group of people.",
    ),
    "pretrained model": (
        "Any use before it was trained on scans: what it knows of contrasts is made up.",
        "Any decision about a patient.",
    ),
}
_OVERSIGHT: dict[Kind, tuple[str, ...]] = {
    "anomaly detector": (
        "A person who can read such scans looks at every scan, not only at what is marked, and may set every finding "
        "aside.",
        "Each finding says how many of its kind healthy scans have, and what made it unusual; a scan that is unlike "
        "the healthy ones is refused and not scored.",
    ),
    "generators of labelled scans": (
        "A person looks at samples before they are used, and reads the verdict and the audit of the run.",
        "Scans marked `internal use only` stay with those who may see the patients' scans.",
    ),
    "generative model": ("A person looks at samples before they are used; nothing has filtered or audited them.",),
    "pretrained model": ("What is trained from it is judged by its own run.",),
}
# Facts under each heading, in their order.
_POPULATION = ("cohort", "split", "modality", "labels", "left_out", "covariates", "subgroups")
_PERFORMANCE = (
    "voxel_performance",
    "scan_performance",
    "sensitivity",
    "false_findings",
    "calibration",
    "segmentation_performance",
    "verdict",
    "amounts",
    "audit",
)
_LIMITS = ("never_found", "smallest_lesion", "gate", "artefacts", "leverage", "few_subjects", "few_seeds", "collapse")


def sections(records: RunRecords) -> tuple[Section, ...]:
    """The intended use of a run's model.

    Raises:
        DataError: If the run has trained nothing, or its records are not as medgen writes them.
    """
    found: tuple[Section, ...] = well_formed(records, lambda: _sections(records))
    return found


def _sections(records: RunRecords) -> tuple[Section, ...]:
    kind = records.kind
    if kind == "other":
        raise DataError(
            f"{records.out}: has trained no model; expected a finished run of medgen anomaly run or adapt, augment "
            "run, train or pretrain"
        )
    read = Reader(records)
    # Whether it is given scans, which are then prepared as those that it learnt from.
    scans = kind == "anomaly detector"
    return (
        Section(
            "Intended purpose", "AI Act Art. 13(3)(b)(i), Annex IV 1(a); FDA indications for use", (_PURPOSE[kind],)
        ),
        Section(
            "Intended users",
            "AI Act Art. 13(3), Annex IV 1",
            ("Researchers in medical imaging who know the statistics of small cohorts; no patients, no clinic.",),
        ),
        Section(
            "Population it was measured on",
            "AI Act Art. 13(3)(b)(v), Annex IV 2(d); FDA intended population",
            _facts(records, _POPULATION if scans else (*_POPULATION, "preprocessing"), _no_groups),
        ),
        Section(
            "Inputs",
            "AI Act Art. 13(3)(b)(vi)",
            (_INPUTS[kind], *_facts(records, ("preprocessing",) if scans else (), lambda _: ())),
        ),
        Section("Outputs", "AI Act Art. 13(3)(b)(iv) and (vii), Annex IV 1(a)", _outputs(records, read)),
        Section(
            "Performance",
            "AI Act Art. 13(3)(b)(ii) and Art. 15, Annex IV 3 and 4",
            _facts(records, _PERFORMANCE, lambda _: ()) or (UNKNOWN,),
        ),
        Section(
            "Limits of performance",
            "AI Act Art. 13(3)(b)(ii) and (iii), Annex IV 3",
            _facts(records, _LIMITS, lambda _: ()) or (UNKNOWN,),
        ),
        Section("Not intended for", "AI Act Art. 13(3)(b)(iii), Annex IV 3; FDA limitations", _NOT_FOR[kind]),
        Section("Human oversight", "AI Act Art. 13(3)(d) and Art. 14, Annex IV 2(e)", _OVERSIGHT[kind]),
        Section(
            "Version and records",
            "AI Act Art. 13(3)(e) and (f), Annex IV 1(a) to (c)",
            _facts(records, ("software", "repeat"), lambda _: ()),
        ),
        Section(
            "Status",
            "",
            (
                NOTICE,
                "The headings are those that the AI Act and the FDA ask for. No conformity was assessed, nothing was "
                "cleared, and this text is no instructions for use of a medical device.",
            ),
        ),
    )


def markdown(records: RunRecords) -> str:
    """The intended use as a page of Markdown.

    Raises:
        DataError: If the run has trained nothing.
    """
    parts = [f"# Intended use: {records.kind} of {records.get('manifest.json', 'name') or records.out.name}"]
    for section in sections(records):
        asked = [f"({section.asked_by})"] if section.asked_by else []
        parts += [f"## {section.heading}", *asked, "\n".join(f"- {line}" for line in section.lines)]
    return "\n\n".join(parts) + "\n"


def _facts(
    records: RunRecords, names: tuple[str, ...], absent: Callable[[RunRecords], tuple[str, ...]]
) -> tuple[str, ...]:
    found = [known.text for name in names if (known := fact_of(records, name)) is not None]
    return (*found, *absent(records))


def _no_groups(records: RunRecords) -> tuple[str, ...]:
    if fact_of(records, "subgroups") is not None:
        return ()
    return ("Performance by age, sex or scanner: not measured by this run.",)


def _outputs(records: RunRecords, read: Reader) -> tuple[str, ...]:
    said = _facts(records, ("output",), lambda _: ())
    if records.kind == "anomaly detector":
        scores = read(METRICS, "channels") or read(ARTIFACT, "meta", "anomaly", "fusion", "channels") or ()
        named = f" ({listed([str(name) for name in scores])})" if scores else ""
        said += (f"Findings name the scores that made them unusual{named}, size, place and brightness; no disease.",)
    if records.kind == "generators of labelled scans":
        made = read(METRICS, "generators") or {}
        said += (f"{count(sum(own['accepted'] for own in made.values()), 'scan')} passed the filter in this run.",)
    return said or (UNKNOWN,)
