"""Croissant metadata of a cohort: JSON-LD by the form of MLCommons, version 1.1, with its Responsible AI fields.

Source: MLCommons, "Croissant format specification 1.1" and "Croissant RAI specification 1.0". Provenance uses the W3C
vocabulary PROV-O, as the specification recommends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from medgen import io
from medgen.data.cards.card import Card
from medgen.data.cards.fields import CardFields
from medgen.data.cards.form import NOTICE, sections_of
from medgen.data.cases import Case, Manifest, case_files
from medgen.errors import ConfigError, DataError
from medgen.system import files

CROISSANT = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
_PROV = "http://www.w3.org/ns/prov#"

# Names that stand for terms of the vocabulary, by the recommendation of the specification (its appendix 1).
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet format "
    "includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
_TYPES = {
    ".nii": "application/x-nifti",
    ".nii.gz": "application/x-nifti+gzip",
    ".dcm": "application/dicom",
    ".nrrd": "application/x-nrrd",
    ".mha": "application/x-metaimage",
    ".mhd": "application/x-metaimage",
    ".json": "application/json",
    ".md": "text/markdown",
}
_VERSION = re.compile(r"\d+(\.\d+(\.\d+)?)?")
_COLLECTED = "Direct measurement"


def croissant(card: Card, manifest: Manifest, *, url: str, creator: str, published: str) -> dict[str, Any]:
    """The metadata of a cohort, as plain data to be written as JSON.

    Args:
        card: Its data card, free of problems.
        manifest: The cohort as found in its folder.
        url: Where it is, or will be.
        creator: Who has made it: a person or an institution.
        published: Day of publication, ``YYYY-MM-DD``.

    Raises:
        ConfigError: If address or day is none.
        DataError: If scans are named by DICOM folders, which may name patients, or a file lies outside of the cohort or
            cannot be read.
    """
    if not re.match(r"https?://\S+$", url):
        raise ConfigError(f"--url {url}: is no address; expected one that begins with https://")
    try:
        date.fromisoformat(published)
    except ValueError:
        raise ConfigError(f"--published {published}: is no day; expected YYYY-MM-DD") from None
    if manifest.named_by_folders:
        raise DataError(
            f"{manifest.root}: scans are named by their DICOM folders, which may name patients; expected names that "
            "may be published; run medgen data import first, which makes them up"
        )
    fields, text = card.fields, sections_of(card.body)
    version = {"version": fields.version} if _VERSION.fullmatch(fields.version) else {}
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": fields.name,
        "description": f"{fields.description} {NOTICE}",
        "license": fields.licence,
        "url": url,
        "creator": {"@type": "sc:Organization", "name": creator},
        "datePublished": published,
        **version,
        "citeAs": fields.citation,
        "keywords": ["medical imaging", fields.modality, fields.kind],
        **_responsible(fields, text),
        **_provenance(fields),
        "distribution": list(_distribution(manifest)),
        "recordSet": [_scans(manifest), *([_labels(fields.labels)] if fields.labels else [])],
    }


def _context() -> dict[str, Any]:
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "prov": _PROV,
        "conformsTo": "dct:conformsTo",
        "name": {"@container": "@language"},
        "description": {"@container": "@language"},
        "data": {"@id": "cr:data", "@type": "@json"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        **{term: f"cr:{term}" for term in _TERMS.split()},
    }


def _responsible(fields: CardFields, text: Mapping[str, str]) -> dict[str, Any]:
    """What the data card says, under the names of the RAI vocabulary; nothing is made up for the others."""
    people = [f"sex: {', '.join(f'{name} {n}' for name, n in fields.sex.items())}"] if fields.sex else []
    people += [f"age: {fields.age[0]:g} to {fields.age[1]:g} years"] if fields.age else []
    generator = fields.provenance.generator
    made = {} if fields.kind == "collected" or generator is None else {"rai:machineAnnotationTools": [generator]}
    labels = ", ".join(f"{value} {name}" for value, name in fields.labels.items())
    drawn = {"rai:dataAnnotationProtocol": [f"Labels: {labels}. {_plain(text['Collection'])}"]} if labels else {}
    return {
        "rai:dataCollection": _plain(text["Collection"]),
        "rai:dataCollectionType": [_COLLECTED if fields.kind == "collected" else f"Others: {fields.kind}"],
        "rai:dataCollectionRawData": fields.source,
        "rai:dataPreprocessingProtocol": [fields.preprocessing],
        **drawn,
        **made,
        "rai:dataUseCases": [fields.intended_use, _plain(text["Use"])],
        "rai:dataLimitations": [_plain(text["Limits"]), f"Not for: {fields.not_for}"],
        "rai:dataBiases": list(fields.known_biases),
        "rai:personalSensitiveInformation": [fields.privacy, *people],
        "rai:dataSocialImpact": f"For research only. Not for: {fields.not_for}",
    }


def _provenance(fields: CardFields) -> dict[str, Any]:
    """Which program has made generated data, and from what."""
    known = fields.provenance
    if known.generator is None:
        return {}
    found: dict[str, Any] = {
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": known.generator},
    }
    if known.parents_sha256:
        found["prov:wasDerivedFrom"] = {"@id": f"urn:sha256:{known.parents_sha256}"}
    return found


def _distribution(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Every file with its hash; those beside the scans that say what they are as well."""
    named: dict[str, Path] = {}
    for case in manifest:
        for path in (file for item in case_files(case) for file in _files_of(item)):
            named[_below(path, manifest.root)] = path
    for path in sorted((manifest.root / "provenance").glob("*.json")):
        named[_below(path, manifest.root)] = path
    for name, path in named.items():
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": _type_of(path),
            "sha256": files.sha256_file(path),
        }


def _scans(manifest: Manifest) -> dict[str, Any]:
    """Which scan shows whom, and which files it is."""
    columns = {"id": "Name of the scan.", "subject": "Whom it shows, by a name that the cohort gives."}
    columns |= {"image": "Its image, one file or folder a channel.", "mask": "Its label map, if there is one."}
    return {
        "@type": "cr:RecordSet",
        "@id": "scans",
        "name": "scans",
        "description": "Every scan with its subject and its files.",
        "key": {"@id": "scans/id"},
        "field": [
            {"@type": "cr:Field", "@id": f"scans/{name}", "name": name, "description": said, "dataType": "sc:Text"}
            for name, said in columns.items()
        ],
        "data": [_row(case, manifest.root) for case in manifest],
    }


def _row(case: Case, root: Path) -> dict[str, str]:
    return {
        "scans/id": case.id,
        "scans/subject": case.subject,
        "scans/image": " ".join(_below(path, root) for path in case.images),
        "scans/mask": "" if case.mask is None else _below(case.mask, root),
    }


def _labels(labels: Mapping[int, str]) -> dict[str, Any]:
    """What each number in the label maps stands for."""
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "description": "Number of every label in the label maps, with its name; 0 is background.",
        "key": {"@id": "labels/value"},
        "field": [
            {"@type": "cr:Field", "@id": "labels/value", "name": "value", "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": "labels/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [{"labels/value": value, "labels/name": name} for value, name in labels.items()],
    }


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return list(io.files_of(path))


def _below(path: Path, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise DataError(
            f"{path}: lies outside of {root}; expected every file below the cohort, which is what is published"
        ) from None


def _type_of(path: Path) -> str:
    name = path.name.lower()
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), "application/octet-stream")


def _plain(text: str) -> str:
    r"""A section on one line, a list in it as a sentence.

    >>> _plain("Two scans.\n\n- one: ours\n- two: theirs")
    'Two scans. one: ours; two: theirs'
    """
    return " ".join(_line(block.strip().splitlines()) for block in text.split("\n\n") if block.strip())


def _line(block: list[str]) -> str:
    return ("; " if block[0].startswith("- ") else " ").join(line.removeprefix("- ").strip() for line in block)
