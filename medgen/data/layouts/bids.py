"""Cases of a BIDS tree: one space of each scan, masks by what their names share with the image's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from medgen import io
from medgen.data.cases import Case
from medgen.data.layouts.by_file_name import Found, mask_base, safe_id
from medgen.data.layouts.listing import found, is_there
from medgen.data.layouts.patterns import compiled
from medgen.faults import Fault, fail
from medgen.system.advice import setting, shown

_MASK_SUFFIXES = ("mask", "dseg", "seg", "label", "labels", "lesion")
# Parts of a name that a mask has and its image has not, or that both have with other values.
_OWN = ("label", "desc", "atlas", "seg", "hemi")
# Parts of a name that say into what a scan was brought.
_COPY = ("space", "res", "den", "cohort")
# Parts of a name that say that the same suffix shows something else: contrast agent, inversion, phase, echo.
_CONTRAST = ("ce", "inv", "part", "echo", "mt", "flip")


def entities(name: str) -> dict[str, str]:
    """Parts of a BIDS name by key; what has no key, such as the suffix, is left out.

    >>> entities("sub-01_space-MNI_desc-brain_mask")
    {'sub': '01', 'space': 'MNI', 'desc': 'brain'}
    """
    pairs = (part.partition("-") for part in name.split("_"))
    return {key: value for key, separator, value in pairs if separator}


def bids(path: Path, glob: str | None, masks: str | None, leave_out: Sequence[str] = ()) -> Found:
    """BIDS: ``sub-<subject>/[ses-<session>/]anat/*_<suffix>.nii.gz``; masks from the same tree or ``derivatives``.

    Args:
        path: The data set.
        glob: Which file names are images, such as ``"*_T2w.nii.gz"``; None takes T1w, or the only kind there is.
        masks: Path or file name of a mask, with ``{id}``, or a glob for names of masks, such as ``"*_dseg.nii.gz"``, of
            which the one with the image's subject, session and space is taken; None is the glob ``"*"``.
        leave_out: Globs of files that are no scans.
    """
    pattern = compiled(glob) if glob else None
    below = glob is not None and "/" in glob
    everything = [file for file in found(path, "sub-*/**/*", leave_out) if io.is_image(file) and is_there(file)]
    if pattern is not None:
        names = {file: file.relative_to(path).as_posix() if below else file.name for file in everything}
        images = [file for file in everything if pattern.fullmatch(names[file])]
    else:
        images = _anatomical(path, everything)
    images, reasons, decisions = _one_space(path, images)
    reasons |= {file: _kind(file) for file in everything if file not in images and file not in reasons}
    derived = [file for file in found(path, "derivatives/**/sub-*", leave_out) if io.is_image(file) and is_there(file)]
    known = {file.name: file for file in [*derived, *everything]}
    cases, unclear = [], []
    for image in images:
        name = io.stem(image)
        mask: Path | None
        if masks and "{id}" in masks:
            match = pattern.fullmatch(image.name) if pattern and not below else None
            base = match[1] if match and match.groups() else name.rpartition("_")[0] or name
            wanted = masks.replace("{id}", base)
            mask = path / wanted if is_there(path / wanted) else known.get(Path(wanted).name)
        else:
            options = _masks_of(name, {key: file for key, file in known.items() if fnmatchcase(key, masks or "*")})
            mask = options[0] if len(options) == 1 else None
            unclear += [(image, options)] if len(options) > 1 else []
        subject = next(part for part in image.relative_to(path).parts if part.startswith("sub-"))
        cases.append(Case(safe_id(name), subject, (image,), mask))
    if unclear:
        image, options = unclear[0]
        decisions.append(
            f"{len(unclear)} scans have several label maps each, such as {shown(file.name for file in options)}, and "
            f"are taken without mask; say which one: {setting('masks', _ending(options[-1]))}"
        )
    taken = {case.mask for case in cases}
    reasons |= {file: "label maps that are not used" for file in known.values() if _is_mask(file) and file not in taken}
    faults = []
    if masks and cases and not any(taken):
        text = f"no file matches {setting('masks', masks)}, for example for case {cases[0].id}"
        faults.append(Fault(str(path), text, "a mask for at least one case", "correct the pattern, or leave it out"))
    return Found(
        cases,
        {},
        faults,
        decisions=tuple(decisions),
        reasons=reasons,
        masks_by=(f"the pattern {masks}" if masks else "names of one subject, session and space") if any(taken) else "",
        subjects_by="from the sub-... of the names",
    )


def _ending(file: Path) -> str:
    """A glob for such label maps of all subjects: what their names have and an image's has not.

    >>> _ending(Path("sub-01_ses-1_desc-brain_mask.nii.gz"))
    '*_desc-brain_mask.nii.gz'
    """
    own = [part for part in io.stem(file).split("_")[:-1] if part.partition("-")[0] in _OWN]
    return "_".join(["*", *own, _suffix(file)]) + file.name[len(io.stem(file)) :]


def _is_mask(file: Path) -> bool:
    return io.stem(file).rpartition("_")[2] in _MASK_SUFFIXES


def _kind(file: Path) -> str:
    return "label maps that are not used" if _is_mask(file) else f"images of another kind ({_suffix(file)})"


def _suffix(file: Path) -> str:
    return io.stem(file).rpartition("_")[2]


def _masks_of(name: str, known: Mapping[str, Path]) -> list[Path]:
    """The label maps of an image: named after it, else of the same subject, session, run and space."""
    base = name.rpartition("_")[0] or name
    named = [file for key, file in known.items() if mask_base(io.stem(key)) in (base, name)]
    if named:
        return named
    mine = {key: value for key, value in entities(name).items() if key not in _OWN}
    options = []
    for file in known.values():
        theirs = {key: value for key, value in entities(io.stem(file)).items() if key not in _OWN}
        if _is_mask(file) and theirs == mine:
            options.append(file)
    return options


def _one_space(path: Path, images: Sequence[Path]) -> tuple[list[Path], dict[Path, str], list[str]]:
    """Choose, among copies of a scan in several spaces, the one in the scan's own space.

    Raises:
        FaultyDataError: If scans are there in several spaces, and in none of their own.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = defaultdict(list)
    for image in images:
        own = {key: value for key, value in entities(io.stem(image)).items() if key not in _COPY}
        groups[(*sorted(own.items()), ("suffix", _suffix(image)))].append(image)
    reasons: dict[Path, str] = {}
    for group in groups.values():
        native = [image for image in group if not any(key in entities(io.stem(image)) for key in _COPY)]
        if len(group) == 1 or len(native) == len(group):
            continue
        if not native:
            first = group[0]
            ending = "_".join(part for part in io.stem(first).split("_") if part.partition("-")[0] in _COPY)
            text = f"one scan in several spaces: {shown(image.name for image in group)}"
            use = setting("images", f"*{ending}*{_suffix(first)}{first.name[len(io.stem(first)) :]}")
            raise fail(path, text, "one space of each scan", f"say which, for example {use}")
        reasons |= {image: f"copies in space {entities(io.stem(image)).get('space', '?')}"
                    for image in group if image not in native}  # fmt: skip
    if not reasons:
        return list(images), {}, []
    some = next(iter(reasons))
    spaces = sorted({entities(io.stem(image)).get("space", "?") for image in reasons})
    ending = f"*space-{spaces[0]}*_{_suffix(some)}{some.name[len(io.stem(some)) :]}"
    decisions = [
        f"{len(reasons)} copies of scans in other spaces ({', '.join(spaces)}) are left out; to use them instead of "
        f"the scans in their own space: {setting('images', ending)}"
    ]
    return [image for image in images if image not in reasons], reasons, decisions


def _anatomical(path: Path, everything: Sequence[Path]) -> list[Path]:
    """The T1w images of ``anat`` folders, or the only other kind there is."""
    images = [file for file in everything if file.parent.name == "anat" and not mask_base(io.stem(file))]
    images = [file for file in images if not _is_mask(file) and _suffix(file) != "probseg"]
    suffixes = sorted({_suffix(file) for file in images})
    if images and "T1w" not in suffixes and len(suffixes) > 1:
        text = f"images of several kinds: {', '.join(suffixes)}"
        example = next(file for file in images if _suffix(file) == suffixes[-1])
        use = setting("images", f"*_{suffixes[-1]}{example.name[len(io.stem(example)) :]}")
        raise fail(path, text, "one kind of image", f"say which, for example {use}")
    chosen = "T1w" if "T1w" in suffixes else suffixes[0] if suffixes else ""
    images = [file for file in images if _suffix(file) == chosen]
    _one_contrast(path, images)
    return images


def _one_contrast(path: Path, images: Sequence[Path]) -> None:
    """Refuse images of one suffix that show several things, such as T1w before and after a contrast agent.

    Raises:
        FaultyDataError: Naming the parts of the names by which they differ.
    """
    kinds: dict[str, Path] = {}
    for image in images:
        own = entities(io.stem(image))
        kinds.setdefault("_".join(f"{key}-{own[key]}" for key in _CONTRAST if key in own), image)
    if len(kinds) < 2:
        return
    named = sorted(kind for kind in kinds if kind)
    text = f"images of several kinds: {', '.join(named)}{' and without it' if '' in kinds else ''}"
    if "" in kinds and len(named) == 1:
        use = setting("leave_out", f"*_{named[0]}_*")
    else:
        first = kinds[named[0]]
        use = setting("images", f"*_{named[0]}_*{_suffix(first)}{first.name[len(io.stem(first)) :]}")
    raise fail(path, text, "one kind of image", f"say which, for example {use}")
