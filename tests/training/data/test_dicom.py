"""DICOM files, made here, against what the standard's formulas give."""

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.decode import BrokenImage, decode
from training.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

VALUES = np.linspace(0, 4000, 64 * 64).astype(np.uint16).reshape(64, 64)


def dicom(values: np.ndarray, **tags: Any) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.3"
    colour = values.ndim > 2 and values.shape[-1] == 3
    image.Rows, image.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    image.SamplesPerPixel = 3 if colour else 1
    if colour:
        image.PlanarConfiguration = 0
    image.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8 * values.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(values.dtype.kind == "i")
    image.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(image, name, value)
    return image


def content(image: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()


def grey(image: Dataset) -> np.ndarray:
    decoded = decode(content(image), "x")
    assert decoded.mode == "L"
    return np.asarray(decoded).astype(float)


def test_a_window_is_applied_after_slope_and_intercept() -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 600], "WindowWidth": [400, 1]}
    hounsfield = VALUES * 2.0 - 1024
    expected = np.clip(((hounsfield - 39.5) / 399 + 0.5), 0, 1) * 255  # PS3.3 C.11.2.1.2
    assert np.abs(grey(dicom(VALUES, **tags)) - expected).max() <= 0.51


def test_sigmoid_and_exact_windows_follow_their_formulas() -> None:
    tags = {"WindowCenter": 2000, "WindowWidth": 1000}
    sigmoid = 255 / (1 + np.exp(-4 * (VALUES - 2000.0) / 1000))
    exact = np.clip((VALUES - 1500.0) / 1000, 0, 1) * 255
    assert np.abs(grey(dicom(VALUES, VOILUTFunction="SIGMOID", **tags)) - sigmoid).max() <= 0.51
    assert np.abs(grey(dicom(VALUES, VOILUTFunction="LINEAR_EXACT", **tags)) - exact).max() <= 0.51


@pytest.mark.parametrize("width", [None, 0, -5])
def test_without_a_usable_window_the_percentiles_are_one(width: int | None) -> None:
    low, high = np.percentile(VALUES, (0.5, 99.5))
    expected = np.clip((VALUES - low) / (high - low), 0, 1) * 255
    tags = {} if width is None else {"WindowCenter": 10, "WindowWidth": width}
    assert np.abs(grey(dicom(VALUES, **tags)) - expected).max() <= 0.51


def test_monochrome1_is_inverted_and_padding_is_black_in_both() -> None:
    values = VALUES.astype(np.int16)
    values[:8] = -2000
    tags = {"PixelPaddingValue": -2000}
    plain = grey(dicom(values, **tags))
    inverted = grey(dicom(values, PhotometricInterpretation="MONOCHROME1", **tags))
    np.testing.assert_array_equal(plain[8:], 255 - inverted[8:])
    assert plain[:8].max() == inverted[:8].max() == 0
    assert plain[8].mean() < 20  # padding does not take part in the percentiles


def test_a_lookup_table_is_used_where_there_is_no_window() -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(255, -1, -1, dtype=np.uint16) * 257).tobytes()
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(grey(dicom(values, VOILUTSequence=[table])), 255.0 - values)


def test_colour_stays_colour() -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(content(dicom(values)), "x")), values)


def test_the_middle_frame_is_taken() -> None:
    frames = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40, 50)])
    image = dicom(frames, NumberOfFrames=5, WindowCenter=128, WindowWidth=256)
    assert grey(image)[0, 0] == 30


def test_run_length_encoding_decodes_to_the_same_image() -> None:
    image = dicom(VALUES, WindowCenter=2000, WindowWidth=4000)
    expected = grey(image)
    image.compress(RLELossless)
    np.testing.assert_array_equal(grey(image), expected)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless"])
def test_the_compressed_syntaxes_of_archives_decode_to_the_same_image(syntax: str, tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm", reason="the dicom extra is not installed")
    image = dicom(VALUES, WindowCenter=2000, WindowWidth=4000)
    (tmp_path / "plain").write_bytes(content(image))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "packed"))
    assert writer.Write()
    packed = (tmp_path / "packed").read_bytes()
    assert VALUES.tobytes() not in packed
    np.testing.assert_array_equal(np.asarray(decode(packed, "x")), grey(image))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, "at most 134,217,728 are decoded"),
        ({"Rows": 0}, "it holds no image"),
        ({"Rows": 640}, "x.dcm"),
    ],
)
def test_sizes_that_the_pixels_do_not_have_are_broken_images(tags: dict[str, int], reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason) as caught:
        decode(content(dicom(VALUES, **tags)), "a/x.dcm")
    assert str(caught.value).startswith("a/x.dcm (") and "\n" not in str(caught.value)


def test_deflated_files_are_refused_since_nothing_bounds_their_size() -> None:
    image = dicom(VALUES)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(BrokenImage, match="deflated"):
        decode(content(image), "x.dcm")


@pytest.mark.parametrize("preamble", [True, False])
def test_a_deflated_file_is_refused_unpacked_however_far_back_it_says_so(
    preamble: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dicom(VALUES)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.file_meta.FileMetaInformationVersion = bytes(5000)
    data = content(image)
    assert DeflatedExplicitVRLittleEndian.encode() not in data[:4096]
    monkeypatch.setattr(pydicom.filereader.zlib, "decompress", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(BrokenImage, match=r"deflated transfer syntax is not read"):
        decode(data if preamble else data[132:], "x.dcm")


def test_the_uid_of_deflation_elsewhere_in_a_file_refuses_nothing() -> None:
    image = dicom(VALUES, ImageComments=str(DeflatedExplicitVRLittleEndian))
    np.testing.assert_array_equal(grey(image), grey(dicom(VALUES)))


def test_text_called_dcm_is_a_broken_image() -> None:
    with pytest.raises(BrokenImage):
        decode(b"no DICOM at all", "x.dcm")


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(dicom(VALUES))
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"x\.dcm is a DICOM file.*kg-targets\[dicom\]"):
        decode(data, "x.dcm")
