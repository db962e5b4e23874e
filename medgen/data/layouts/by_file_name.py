"""Cases from the names of files in a plain folder, and from their content where names leave a choice."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from medgen import io
from medgen.data.cases import Case
from medgen.data.content import Traits, stripped_to, traits
from medgen.data.layouts.listing import images_in, is_dicom_file
from medgen.data.layouts.name_groups import Kinds, kinds_of
from medgen.errors import DataError
from medgen.faults import Fault, fail
from medgen.system.advice import apart, glob_like, quoted, setting

_WORDS = (
    "mask|masks|seg|segm|segmentation|segmentations|label|labels|labelmap|dseg|lesion|lesions|gt|groundtruth|roi|rois|"
    "annotation|annotations|truth"
)
_MASK_FOLDERS = ("masks", "labels", "segmentations", "labelsTr")
_IMAGE_FOLDERS = ("images", "imagesTr")
# Groups of files whose content is looked at to tell what a kind of file is; the rest is checked before it is used.
_LOOKED_AT = 5
_PARTS = re.compile(r"[_\-. ]+")


@dataclass(frozen=True)
class Found:
    """What a layout holds.

    Attributes:
        cases: With subject "" where the layout does not say.
        labels: Name per label number.
        faults: What is wrong with the layout.
        name: What the cohort is called; empty where nothing says it.
        decisions: What was decided where names left a choice.
        reasons: Why a file is no case.
        channels: Name of each channel, where known.
        regions: Name → label numbers of nested regions.
        class_order: Number that each region is drawn with.
        masks_by: How masks were told from scans.
        subjects_by: How the layout knows subjects; empty if it does not.
    """

    cases: list[Case]
    labels: Mapping[int, str]
    faults: list[Fault]
    name: str = ""
    decisions: tuple[str, ...] = ()
    reasons: Mapping[Path, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_order: tuple[int, ...] = ()
    masks_by: str = ""
    subjects_by: str = ""


def safe_id(name: str) -> str:
    """A case id from a file name: what cannot be in a file name everywhere becomes ``-``, and accents are dropped.

    Letters that would be lost become a hash of their own, so that ids stay apart and the parts of a name stay parts.

    >>> safe_id("Müller_01"), safe_id("a b"), safe_id("患者_V1"), safe_id("医者_V1")
    ('Muller_01', 'a-b', 'x9db4a3_V1', 'xa9f15b_V1')
    """
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    plain = re.sub(r"[^\W_\x00-\x7f]+", lambda match: f"x{_hash(match[0])}", plain.replace("ß", "ss"))
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "case"
    return safe if len(safe) <= 100 else f"{safe[:93]}x{_hash(name)}"


def distinct(cases: Sequence[Case]) -> list[Case]:
    """The cases with ids that differ where only accents or signs of their names do: such ids get a hash of the name."""
    owners: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        owners[case.id.lower()].append(case)
    result = []
    for case in cases:
        stem = io.stem(case.images[0])
        changed = stem != case.id and safe_id(stem) == case.id
        clash = len(owners[case.id.lower()]) > 1
        result.append(replace(case, id=f"x{_hash(stem)}{case.id[:93]}") if clash and changed else case)
    return result


def _hash(name: str) -> str:
    # macOS stores é as two signs, other systems as one.
    normal = unicodedata.normalize("NFC", name)
    return hashlib.sha256(normal.encode("utf-8", "backslashreplace")).hexdigest()[:6]


def image_folder(path: Path) -> Path | None:
    """The subfolder that holds the images, where its name says so."""
    return next((path / name for name in _IMAGE_FOLDERS if images_in(path / name)), None)


def by_names(path: Path, leave_out: Sequence[str] = ()) -> Found:
    """Every image is a case; masks are ``<id>_mask``, ``segmentation-<id>`` and the like, or in a folder of masks.

    Where names differ in one part only, such as ``p1`` and ``p1_final``, the content of some files tells label maps and
    copies without skull from scans.
    """
    folder = image_folder(path) or path
    files = images_in(folder, leave_out)
    _refuse_mixed(folder, files)
    masks = {file: base for file in files if (base := mask_base(io.stem(file)))}
    images = [file for file in files if file not in masks]
    words = sorted({_word(io.stem(file)) for file in masks})
    told = [f"names ({', '.join(words)})"] if words else []
    if not images:  # a cohort of masks only is a cohort of images
        images, masks, told = files, {}, []
    for name in _MASK_FOLDERS:
        for file in images_in(path / name, leave_out):
            masks[file] = mask_base(io.stem(file)) or io.stem(file)
            told.append(f"the folder {name}")
    decisions: list[str] = []
    reasons: dict[Path, str] = {}
    of_group: dict[Path, Path] = {}
    twice: list[Fault] = []
    while kinds := kinds_of([io.stem(file) for file in images]):
        look = _Look(kinds, {io.stem(file): file for file in images})
        value, what = look.not_scans()
        if not what:
            break
        moved = look.files(value)
        images = [file for file in images if file not in moved]
        if what == "labels":
            found = look.beside(value)
            for image in sorted(set(found) & set(of_group)):
                text = f"two label maps, {of_group[image].name} and {found[image].name}, for {image.name}"
                leave = setting("leave_out", look.pattern(value))
                twice.append(Fault(str(image), text, "one mask for each image", f"leave one out, such as {leave}"))
            of_group |= found
            told.append(f"content (few whole numbers: {look.pattern(value)})")
        else:
            reasons |= dict.fromkeys(moved, f"copies without skull ({look.pattern(value)})")
            use = setting("images", look.pattern(value))
            decisions.append(
                f"{len(moved)} files {look.pattern(value)} are copies of other scans with nothing around, and left "
                f"out; to use them instead: {use}"
            )
    paired, faults = _paired(images, masks, of_group)
    cases = [Case(safe_id(io.stem(file)), "", (file,), paired.get(file)) for file in images]
    return Found(
        cases,
        {},
        [*twice, *faults],
        decisions=tuple(decisions),
        reasons=reasons,
        masks_by=", ".join(dict.fromkeys(told)) if any(case.mask for case in cases) else "",
    )


def _refuse_mixed(folder: Path, files: Sequence[Path]) -> None:
    """Refuse slices of a DICOM series that lie among images of other formats, each of which is a whole scan."""
    slices = [file for file in files if is_dicom_file(file)]
    others = [file for file in files if file not in slices]
    if slices and others:
        example = others[0]
        glob = f"*{example.name[len(io.stem(example)) :]}"
        text = f"{len(slices)} DICOM files ({slices[0].name}) beside {len(others)} other images ({example.name})"
        action = (
            f"take the other images only: {setting('images', glob)}; or the DICOM series only: "
            f"{setting('layout', 'dicom')}; for both, make NIfTI of the series first: medgen data import "
            f"{quoted(folder)} OUT --layout dicom"
        )
        raise fail(folder, text, "one kind of image in a folder", action)


def is_mask_word(part: str) -> bool:
    """Whether a part of a name says that a file is a label map.

    >>> is_mask_word("GT"), is_mask_word("T1w")
    (True, False)
    """
    return re.fullmatch(_WORDS, part, re.IGNORECASE) is not None


def mask_base(name: str) -> str:
    """What a mask is named after: ``x`` of ``x_mask``, ``x.seg``, ``labels-x`` and so on; empty for other names.

    >>> mask_base("x_1_mask"), mask_base("segmentation-0"), mask_base("x"), mask_base("x.seg")
    ('x_1', '0', '', 'x')
    """
    parts = _PARTS.split(name)
    if len(parts) < 2:
        return ""
    if is_mask_word(parts[-1]):
        return name[: -len(parts[-1])].rstrip("_-. ")
    if is_mask_word(parts[0]):
        return name[len(parts[0]) :].lstrip("_-. ")
    return ""


def _word(name: str) -> str:
    parts = _PARTS.split(name)
    return parts[-1] if is_mask_word(parts[-1]) else parts[0]


def _paired(
    images: Iterable[Path], masks: Mapping[Path, str], told: Mapping[Path, Path]
) -> tuple[dict[Path, Path], list[Fault]]:
    """Image → its mask; a mask's name is that of the image, or that without its first or last part, or begins with it.

    Two masks for one image, and masks for none, are faults; ``told`` are the masks that content has told.
    """
    # Names of one cohort may come from several systems, which store accents in two ways.
    by_stem = {unicodedata.normalize("NFC", io.stem(image)): image for image in images}
    masks = {mask: unicodedata.normalize("NFC", base) for mask, base in masks.items()}
    shorter: dict[str, set[Path]] = defaultdict(set)
    firsts = {_PARTS.split(stem)[0] for stem in by_stem}
    for stem, image in by_stem.items():
        shorter[re.sub(r"[_\-. ][^_\-. ]*$", "", stem)].add(image)
        if len(firsts) == 1:
            shorter[re.sub(r"^[^_\-. ]*[_\-. ]", "", stem)].add(image)
    result: dict[Path, Path] = dict(told)
    faults = []
    for mask, base in sorted(masks.items()):
        # What two images share belongs to neither of them.
        near = shorter[base] if len(shorter[base]) == 1 else ()
        owner = by_stem.get(base) or next(iter(near), None) or _beginning(base, by_stem)
        if owner is None:
            # Masks in a folder of their own may have the names of scans.
            beside = any(image.parent == mask.parent for image in by_stem.values())
            leave = setting("leave_out", mask.name if beside else f"{mask.parent.name}/{mask.name}")
            action = f"add its image, name it after one, or leave it out: {leave}"
            if beside and len(shorter[base]) > 1:
                patterns = setting("images", glob_like(min(shorter[base]).name)), setting("masks", glob_like(mask.name))
                action = f"say which files are which, for example {' '.join(patterns)}; or leave it out: {leave}"
            faults.append(Fault(str(mask), "a mask without image", "an image for every mask", action))
        elif owner in result:
            one, other = apart(mask, result[owner])
            text = f"two masks, {other} and {one}, for {owner.name}"
            ways = [_left_out(file, (owner, mask, result[owner])) for file in (result[owner], mask)]
            action = f"leave one of them out, for example {ways[0]} or {ways[1]}"
            scans = glob_like(owner.name)
            if not any(fnmatchcase(file.name, scans) for file in (mask, result[owner])):
                example = f"{setting('images', scans)} {setting('masks', glob_like(mask.name))}"
                action = f"{action}; or say which files are which, for example {example}"
            faults.append(Fault(str(owner), text, "one mask for each image", action))
        else:
            result[owner] = mask
    return result, faults


def _left_out(file: Path, among: Sequence[Path]) -> str:
    """The setting that leaves files like one of several out; this file alone where the others are named like it."""
    like = glob_like(file.name)
    unlike = not any(fnmatchcase(other.name, like) for other in among if other != file)
    return setting("leave_out", like if unlike else f"{file.parent.name}/{file.name}")


def _beginning(base: str, by_stem: Mapping[str, Path]) -> Path | None:
    """The image whose name a mask's name goes on from: x of x_brain; the longest, if several."""
    cut = base
    while match := re.search(r"[_\-. ]+[^_\-. ]*$", cut):
        cut = cut[: match.start()]
        if cut in by_stem:
            return by_stem[cut]
    return None


@dataclass(frozen=True)
class _Look:
    """Kinds of files that names tell apart, and what some of them hold."""

    kinds: Kinds
    by_stem: Mapping[str, Path]
    _seen: dict[Path, Traits | None] = field(default_factory=dict)

    def files(self, value: str) -> list[Path]:
        """The files of one kind."""
        return [self.by_stem[name] for name in self.kinds.named(value)]

    def beside(self, value: str) -> dict[Path, Path]:
        """File of another kind → the file of this kind in its group."""
        return {
            self.by_stem[name]: self.by_stem[group[value]]
            for group in self.kinds.several
            if value in group
            for other, name in group.items()
            if other != value
        }

    def pattern(self, value: str) -> str:
        """A glob for the files of one kind."""
        example = self.files(value)[0]
        return (self.kinds.file_pattern(value) or io.stem(example)) + example.name[len(io.stem(example)) :]

    def not_scans(self) -> tuple[str, str]:
        """A kind that is none of scans and what it is, ``labels`` or ``stripped``; two empty words if all are scans."""
        if len(self.kinds.values) > 8:
            return "", ""
        for value in self.kinds.values:
            pairs = [(group[value], [name for other, name in group.items() if other != value])
                     for group in self.kinds.several if value in group]  # fmt: skip
            step = max(1, len(pairs) // _LOOKED_AT)
            some = [(self._traits(name), [self._traits(other) for other in others]) for name, others in pairs[::step]]
            if some and all(own is not None and own.labels and any(o and not o.labels for o in o_) for own, o_ in some):
                return value, "labels"
            if some and all(own and any(o and stripped_to(own, o) is not None for o in o_) for own, o_ in some):
                return value, "stripped"
        return "", ""

    def _traits(self, name: str) -> Traits | None:
        path = self.by_stem[name]
        if path not in self._seen:
            try:
                self._seen[path] = traits(io.read(path, multichannel=True, fill=0.0, unscaled=True))
            except DataError:
                # Whoever reads it to use it says what is wrong.
                self._seen[path] = None
        return self._seen[path]
