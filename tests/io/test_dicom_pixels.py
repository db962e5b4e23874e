"""Every way of packing pixels that scanners and archives use is decoded exactly, or named in full."""

import gdcm
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from medgen import io
from medgen.faults import FaultyDataError
from tests.builders.dicom_folders import compressed, series

SYNTAXES = {
    uid.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    uid.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    uid.JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    uid.JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    uid.RLELossless: gdcm.TransferSyntax.RLELossless,
}


def values(stored):
    numbers = np.random.default_rng(0).integers(0, 250 if stored == "uint8" else 4000, (5, 24, 32))
    return (numbers - (1500 if stored == "int16" else 0)).astype(stored)


def packed(folder, syntax, data):
    series(folder, data=data)
    for path in folder.glob("*.dcm"):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(SYNTAXES[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    return folder


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("stored", ["uint8", "uint16", "int16"])
def test_lossless_pixels_are_read_exactly(tmp_path, syntax, stored):
    data = values(stored)
    volume = io.read(packed(tmp_path / "scan", syntax, data))
    np.testing.assert_array_equal(volume.data[0].transpose(2, 1, 0), data)


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pixels_that_are_cut_off_are_refused(tmp_path, syntax, share):
    folder = packed(tmp_path / "scan", syntax, values("uint16"))
    path = folder / "003.dcm"
    item = dcmread(path)
    frame = next(generate_frames(item.PixelData, number_of_frames=1))
    item.PixelData = encapsulate([frame[: int(share * len(frame))]])
    item["PixelData"].is_undefined_length = True
    item.save_as(path)
    with pytest.raises(FaultyDataError) as caught:
        io.read(folder)
    assert syntax.name in str(caught.value)
    assert "003.dcm" in str(caught.value)


def test_what_nothing_decodes_is_named_in_full(tmp_path):
    folder = compressed(tmp_path / "scan", uid.HTJ2KLossless, lambda pixels: bytes(200))
    with pytest.raises(FaultyDataError) as caught:
        io.read(folder)
    text = str(caught.value)
    assert "High-Throughput JPEG 2000 Image Compression (Lossless Only) (1.2.840.10008.1.2.4.201)" in text
    assert "expected pixels uncompressed or in RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000" in text
    assert "export it again in one of these" in text


def test_every_decoder_is_there():
    from pydicom.pixels import get_decoder

    from medgen.io.dicom.pixels import _DECODERS

    for syntax, plugin in _DECODERS.items():
        assert plugin in get_decoder(syntax).available_plugins
