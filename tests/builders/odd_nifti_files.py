"""NIfTI files that are unusual but sound: whoever refuses one of them is wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from tests.builders.nifti_files import AFFINE, DATA, INF, NAN, SHAPE, Make, file, half, nifti, pair, rotated


def _gz(content: bytes, **options: int) -> bytes:
    return gzip.compress(content, **options)


def _named_gz(content: bytes) -> bytes:
    """With the file name, a comment and an extra field in the gzip header, as gzip and bgzip write them."""
    plain = gzip.compress(content, mtime=0)
    extra = b"BC\x02\x00\x00\x00"
    head = plain[:3] + bytes([4 | 8 | 16]) + plain[4:10]
    return head + struct.pack("<H", len(extra)) + extra + b"scan.nii\0comment\0" + plain[10:]


def odd() -> dict[str, tuple[Make, np.ndarray, np.ndarray]]:
    """Files that are unusual but sound: maker, values (i, j, k), affine."""
    good = nifti()
    floats = DATA.astype(np.float32)
    ramp = np.random.default_rng(1).normal(100, 30, SHAPE)
    signed = DATA - 100
    flips = {
        "flipped-x": np.diag([-2.0, 2, 2, 1]),
        "flipped-y": np.diag([2.0, -2, 2, 1]),
        "flipped-z": np.diag([2.0, 2, -2, 1]),
        "flipped-all": np.diag([-2.0, -2, -2, 1]),
        "axes-permuted": np.array([[0, 0, 2.0, 1], [2.0, 0, 0, 2], [0, 2.0, 0, 3], [0, 0, 0, 1]]),
        "axes-permuted-flipped": np.array([[0, -2.0, 0, 1], [0, 0, 2.0, 2], [-2.0, 0, 0, 3], [0, 0, 0, 1]]),
        "oblique": rotated(10, -20, 30),
        "oblique-45": rotated(45, 45, 45),
        "oblique-180": rotated(180, 0.01, 0),
        "oblique-nearly-180": rotated(179.99, 12, 3, zooms=(0.5, 0.7, 3)),
        "anisotropic": rotated(3, 2, 1, zooms=(0.3, 0.3, 10)),
        "tiny-voxels": np.diag([0.05, 0.05, 0.05, 1]),
        "table-position": rotated(0, 0, 0, origin=(-250.0, -250.0, -1850.5)),
        "oblique-far": rotated(33, 5, 80, origin=(123.456, -765.4321, 1234.5)),
    }
    made: dict[str, tuple[Make, np.ndarray, np.ndarray]] = {
        name: (file(nifti(affine=affine)), DATA, affine) for name, affine in flips.items()
    }
    for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
        values = np.clip(DATA, 0, 100).astype(code)
        made[f"type-{code}"] = (file(nifti(values)), values, AFFINE)
        made[f"type-{code}-big-endian"] = (file(nifti(values, endian=">")), values, AFFINE)
    plain: dict[str, bytes] = {
        "big-endian-gz": _gz(nifti(endian=">")),
        "nifti2": nifti(version=2),
        "nifti2-gz": _gz(nifti(version=2)),
        "nifti2-big-endian": nifti(version=2, endian=">"),
        "sform-only": nifti(forms="s"),
        "qform-only": nifti(forms="q"),
        "qform-code-2": nifti(qform_code=2, sform_code=4),
        "sform-beside-garbage-qform": nifti(qform_code=0, quatern_b=9.0, qoffset_x=NAN),
        "qform-beside-garbage-sform": nifti(sform_code=0, srow_x=[NAN] * 4),
        "no-units": nifti(xyzt_units=0),
        "units-mm-sec": nifti(xyzt_units=10),
        "units-mm-msec": nifti(xyzt_units=18),
        "intent-label": nifti(intent_code=1002),
        "intent-statistic": nifti(intent_code=5, intent_p1=3.0),
        "intent-unknown": nifti(intent_code=2222),
        "cal-nonsense": nifti(cal_max=NAN, cal_min=INF),
        "cal-swapped": nifti(cal_max=-5, cal_min=7),
        "text-fields": nifti(descrip=b"\xff\xfe\x00 \xc3\x28 <script>", aux_file=b"../../etc/passwd"),
        "slice-fields-nonsense": nifti(slice_code=77, slice_end=-5, slice_duration=NAN, toffset=NAN),
        "pixdim-behind-nonsense": nifti(pixdim=[-1, 2, 2, 2, NAN, 0, -3, INF]),
        "singleton-4d": nifti(DATA[..., None]),
        "singleton-7d": nifti(DATA[..., None, None, None, None]),
        "rank-3-dims-behind-0": nifti(dim=[3, *SHAPE, 0, 0, 0, 0]),
        "extension": nifti(extension=b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"c" * 24),
        "extensions": nifti(
            extension=b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"c" * 24 + struct.pack("<ii", 48, 4) + b"<" * 40
        ),
        "extension-big-endian": nifti(endian=">", extension=b"\1\0\0\0" + struct.pack(">ii", 32, 6) + b"c" * 24),
        "extension-then-zeros": nifti(extension=b"\1\0\0\0" + struct.pack("<ii", 32, 6) + bytes(24) + bytes(64)),
        "offset-padded": nifti(extension=bytes(4 + 64)),
        "offset-odd": nifti(extension=bytes(4 + 7)),
        "flag-without-extension": nifti(extension=b"\1\0\0\0"),
        "gz-level-1": _gz(good, compresslevel=1),
        "gz-stored": _gz(good, compresslevel=0),
        "gz-with-names": _named_gz(good),
        "gz-two-members": _gz(good[:700]) + _gz(good[700:]),
        "gz-header-apart": _gz(good[:100]) + _gz(good[100:348]) + _gz(good[348:]),
        "gz-empty-member-behind": _gz(good) + _gz(b""),
        "gz-many-members": b"".join(_gz(good[start : start + 97]) for start in range(0, len(good), 97)),
        "gz-padded": _gz(good) + bytes(512),
        "gz-padded-to-tape": _gz(good) + bytes(10240),
    }
    for name, content in plain.items():
        made[name] = (file(content, "a.nii.gz" if content[:2] == b"\x1f\x8b" else "a.nii"), DATA, AFFINE)
    for suffix in (".NII", ".nii.gz", "", ".img", ".hdr", ".dat", ".nii.gz.bak", ".nrrd"):
        made[f"plain-as-{suffix}"] = (file(good, f"scan{suffix}"), DATA, AFFINE)
    for suffix in (".NII.GZ", ".nii", "", ".Nii.Gz"):
        made[f"gz-as-{suffix}"] = (file(_gz(good), f"scan{suffix}"), DATA, AFFINE)
    note = b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"c" * 24
    made |= {
        "pair": (pair(*half(good)), DATA, AFFINE),
        "pair-by-image": (pair(*half(good), given="a.img"), DATA, AFFINE),
        "pair-per-cent": (pair(*half(good), "list 5%.hdr", "list 5%.img"), DATA, AFFINE),
        "pair-flag": (pair(*half(good, bytes(4))), DATA, AFFINE),
        "pair-extension": (pair(*half(good, note)), DATA, AFFINE),
        "pair-big-endian": (pair(*half(nifti(endian=">"))), DATA, AFFINE),
        "pair-nifti2": (pair(*half(nifti(version=2))), DATA, AFFINE),
        "pair-packed": (pair(*map(_gz, half(good)), "a b.hdr.gz", "a b.img.gz"), DATA, AFFINE),
        "pair-packed-by-image": (pair(*map(_gz, half(good)), "a.hdr.gz", "a.img.gz", "a.img.gz"), DATA, AFFINE),
        "pair-half-packed": (pair(half(good)[0], _gz(half(good)[1]), "A.HDR", "A.IMG.gz"), DATA, AFFINE),
        "pair-offset": (pair(half(good, vox_offset=16)[0], bytes(16) + half(good)[1]), DATA, AFFINE),
    }
    names = (
        "with blank.nii",
        "Größe äöü ñ.nii.gz",
        "脳スキャン.nii",
        "a'b\"c$d;e.nii",
        "-dash.nii",
        "per%cent#.nii.gz",
    )
    for name in names:
        made[f"name {name}"] = (file(_gz(good) if name.endswith(".gz") else good, f"folder ü/{name}"), DATA, AFFINE)
    fine = np.diag([0.2, 0.2, 0.2, 1])
    scaled = signed.astype(np.float64) * 0.5 - 1024
    made |= {
        "scaled": (file(nifti(signed, scl_slope=0.5, scl_inter=-1024)), scaled, AFFINE),
        "scaled-negative": (file(nifti(signed, scl_slope=-2)), signed * -2.0, AFFINE),
        "scaled-big-endian": (file(nifti(signed, endian=">", scl_slope=0.5, scl_inter=-1024)), scaled, AFFINE),
        "shifted-only": (file(nifti(signed, scl_inter=-1024)), signed - 1024.0, AFFINE),
        "scaled-tiny": (file(nifti(signed, scl_slope=1e-6)), signed * 1e-6, AFFINE),
        "two-voxels-thick": (file(nifti(DATA[:2])), DATA[:2], AFFINE),
        "two-slices": (file(nifti(DATA[:, :, :2])), DATA[:, :, :2], AFFINE),
        "long": (file(nifti(np.arange(8000, dtype=np.int16).reshape(2, 2, 2000))), None, AFFINE),
        "longer-than-int16": (
            file(nifti(np.arange(4 * 40000, dtype=np.int32).reshape(2, 2, 40000), fine, version=2)),
            None,
            fine,
        ),
        "uint64-large": (file(nifti(DATA.astype(np.uint64) + 2**40)), DATA.astype(np.uint64) + 2**40, AFFINE),
        "values-huge": (file(nifti(floats * np.float32(1e30))), floats * np.float32(1e30), AFFINE),
        "values-tiny": (file(nifti(floats * np.float32(1e-30))), floats * np.float32(1e-30), AFFINE),
        "float64": (file(nifti(ramp)), ramp, AFFINE),
        "nearly-constant": (file(nifti(np.eye(6, 7)[..., None].repeat(8, 2).astype(np.uint8))), None, AFFINE),
    }

    def linked(folder: Path) -> Path:
        (folder / "real").mkdir()
        target = file(good)(folder / "real")
        (folder / "link.nii").symlink_to(target.relative_to(folder))
        return folder / "link.nii"

    made["link-inside"] = (linked, DATA, AFFINE)
    return made
