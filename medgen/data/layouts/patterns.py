"""Cases from patterns: images, channels and masks are matched by what their stars stand for, or by their folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from medgen import io
from medgen.data.cases import Case
from medgen.data.layouts.by_file_name import Found, safe_id
from medgen.data.layouts.listing import found, is_there
from medgen.faults import Fault
from medgen.system.advice import setting, shown

Stars = tuple[str, ...]


def by_pattern(path: Path, images: Mapping[str, str], masks: str | None, leave_out: Sequence[str] = ()) -> Found:
    """Images that match globs, one glob per channel; what the stars stand for makes the id and finds the mask.

    Args:
        path: Folder of the cohort.
        images: Channel name → glob, in channel order. Names may be made up where there is one channel.
        masks: Path of a mask below the folder with ``{id}``, or a glob whose stars stand for the same as those of the
            images, or that names one file in the folder of each image.
        leave_out: Globs of files that are no scans.
    """
    first, *others = images.values()
    files = found(path, first, leave_out)
    stars = {file: stars_of(first, file.relative_to(path).as_posix()) for file in files}
    if masks and "*" in masks and "{id}" not in masks:
        marked = set(found(path, masks, leave_out))
        # A glob for images that names masks as well, such as *.nii.gz, means the rest.
        files = [file for file in files if file not in marked]
    ids = _ids(files, stars)
    faults: list[Fault] = []
    channels = [{file: file for file in files}]
    for glob in others:
        matched, wrong = _matched(path, files, stars, glob, leave_out)
        faults += wrong
        faults += [
            Fault(str(file), f"no file of the pattern {glob!r} goes with it", "one file for each channel", _CORRECT)
            for file in files
            if file not in matched and not wrong
        ]
        channels.append(matched)
    files = [file for file in files if all(file in channel for channel in channels)]
    labels: Mapping[Path, Path] = {}
    if masks and ("{id}" in masks or not re.search(r"[*?\[]", masks)):
        labels, wrong = _by_id(path, files, stars, ids, masks)
        faults += wrong
    elif masks:
        labels, wrong = _matched(path, files, stars, masks, leave_out)
        faults += wrong
    cases = [Case(safe_id(ids[file]), "", tuple(c[file] for c in channels), labels.get(file)) for file in files]
    if masks and cases and not labels and not faults:
        text = f"no file matches {setting('masks', masks)}, for example for case {cases[0].id}"
        faults.append(Fault(str(path), text, "a mask for at least one case", "correct the pattern, or leave it out"))
    # Globs that were given as a list have numbers instead of names.
    named = () if all(name.isdigit() for name in images) else tuple(images)
    return Found(cases, {}, faults, channels=named, masks_by=f"the pattern {masks}" if labels else "")


_CORRECT = "correct the pattern, or leave the case out"


def compiled(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression with a group for every part that varies."""
    pieces = re.split(r"(\*\*/|\*|\?+|\[[^\]/]+\])", glob)
    return re.compile("".join(_expression(piece) for piece in pieces))


def _expression(piece: str) -> str:
    if piece == "**/":
        return r"((?:.*/)?)"
    if piece == "*":
        return r"([^/]*)"
    if piece.startswith("?"):
        return rf"([^/]{{{len(piece)}}})"
    if piece.startswith("[") and piece.endswith("]"):
        return f"([{'^' + piece[2:-1] if piece[1] == '!' else piece[1:-1]}])"
    return re.escape(piece)


def stars_of(glob: str, relative: str) -> Stars:
    """What the varying parts of a glob stand for in a path; empty if it varies nowhere or does not match.

    >>> stars_of("*/*_t1.nii.gz", "case1/x_7_t1.nii.gz")
    ('case1', 'x_7')
    """
    match = compiled(glob).fullmatch(relative)
    return tuple((group or "").strip("/") for group in match.groups()) if match else ()


def _ids(files: Sequence[Path], stars: Mapping[Path, Stars]) -> dict[Path, str]:
    """A name per file from what its stars stand for; parts that only repeat another one are left out."""
    lengths = {len(stars[file]) for file in files}
    kept = list(range(max(lengths, default=0)))
    if len(lengths) == 1:
        for part in list(kept):
            others = [other for other in kept if other != part]
            repeats = any(all(stars[file][part] in stars[file][other] for file in files) for other in others)
            names = {tuple(stars[file][other] for other in others) for file in files}
            if repeats and len(names) == len(files):
                kept = others
    return {
        file: "-".join(stars[file][part] for part in kept if part < len(stars[file]) and stars[file][part])
        or io.stem(file)
        for file in files
    }


def _by_id(
    path: Path, files: Sequence[Path], stars: Mapping[Path, Stars], ids: Mapping[Path, str], masks: str
) -> tuple[dict[Path, Path], list[Fault]]:
    """Masks whose path holds the id: as it is, as all stars joined, or as one of the stars."""
    result, faults = {}, []
    for file in files:
        for name in dict.fromkeys((ids[file], "-".join(filter(None, stars[file])), *stars[file])):
            wanted = masks.replace("{id}", name)
            options = found(path, wanted) if re.search(r"[*?]", wanted) else [path / wanted]
            options = [option for option in options if is_there(option) and option != file]
            if len(options) > 1:
                text = f"{len(options)} files match {wanted!r}: {shown(option.name for option in options)}"
                faults.append(Fault(str(file), text, "one mask for each image", _CORRECT))
            if options:
                result[file] = options[0]
                break
    return result, faults


def _matched(
    path: Path, files: Sequence[Path], stars: Mapping[Path, Stars], glob: str, leave_out: Sequence[str]
) -> tuple[dict[Path, Path], list[Fault]]:
    """For each image the one file of another glob that goes with it, by the way that matches most of them."""
    others = [file for file in found(path, glob, leave_out) if file not in set(files)]
    told = {file: stars_of(glob, file.relative_to(path).as_posix()) for file in others}
    ways: list[tuple[Callable[[Path], Hashable], Callable[[Path], Hashable]]] = [
        (lambda file: stars[file], lambda file: told[file]),
        (lambda file: frozenset(stars[file]), lambda file: frozenset(told[file])),
        (lambda file: file.parent, lambda file: file.parent),
        (lambda file: file.relative_to(path).parts[0], lambda file: file.relative_to(path).parts[0]),
        (lambda file: stars[file][:1], lambda file: told[file][:1]),
    ]
    best: dict[Path, Path] = {}
    for mine, theirs in ways:
        groups: dict[Hashable, list[Path]] = defaultdict(list)
        for file in others:
            groups[theirs(file)].append(file)
        wanted: dict[Hashable, list[Path]] = defaultdict(list)
        for file in files:
            wanted[mine(file)].append(file)
        # One way for all: where it is ambiguous for one image, what it says of others is not to be trusted.
        if any(len(groups.get(key, ())) > 1 or len(own) > 1 for key, own in wanted.items() if key in groups):
            continue
        matched = {own[0]: groups[key][0] for key, own in wanted.items() if key in groups}
        if len(matched) > len(best):
            best = matched
    left = sorted(set(others) - set(best.values()))
    if others and (left or not best):
        text = f"goes with no image, as do {len(left) - 1} more files of the pattern {glob!r}"
        action = "make both patterns vary in the same parts, or keep one such file in the folder of each image"
        return best, [Fault(str((left or others)[0]), text, "one image for every such file", action)]
    return best, []
