"""What becomes of each kind of image file."""

import io
import struct
import subprocess
import zlib

import numpy as np
import open_clip
import pytest
import torch
from PIL import EpsImagePlugin, Image

from tests.images import encoded, png
from training.data.decode import BrokenImage, decode
from training.data.pixels import percentile_window, to_grey
from training.data.transforms import PixelTransform

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def pixels(data: bytes, name: str = "x.png") -> np.ndarray:
    return np.asarray(decode(data, name).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ordinary_images_stay_as_pillow_decodes_them(kind: str, mode: str) -> None:
    data = encoded(Image.fromarray(RAMP).convert(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(pixels(data), expected)


def test_bilevel_images_are_black_and_white() -> None:
    image = Image.fromarray(RAMP > 100)
    assert image.mode == "1"
    np.testing.assert_array_equal(pixels(encoded(image))[..., 0], (RAMP > 100) * 255)


def test_cmyk_jpeg_has_the_colours_of_the_rgb_it_was_made_from() -> None:
    red = Image.new("RGB", (16, 16), (200, 20, 20))
    data = encoded(red.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(pixels(data).astype(int) - (200, 20, 20)).max() <= 4


def test_palette_colours_are_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixels(encoded(image))[0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_black_whatever_colour_hides_below(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (240, 240, 240, 255))
    image.putpixel((0, 0), (240, 240, 240, 0))
    image.putpixel((1, 0), (240, 240, 240, 128))
    found = pixels(encoded(image.convert(mode)))
    assert found[0, 0].tolist() == [0, 0, 0] and found[3, 3].tolist() == [240, 240, 240]
    assert abs(int(found[0, 1, 0]) - 240 * 128 / 255) <= 1


def test_a_transparent_palette_entry_and_a_transparent_grey_are_black() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixels(encoded(image, transparency=1)).max() == 0
    assert pixels(encoded(Image.new("L", (4, 4), 77), transparency=77)).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_windowed_and_not_clipped(kind: str) -> None:
    values = np.linspace(1000, 3000, 64 * 64).astype(np.uint16).reshape(64, 64)
    found = pixels(encoded(Image.fromarray(values), kind))[..., 0].astype(float)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    assert np.abs(found - expected).max() <= 0.51
    assert len(np.unique(found)) > 200


def test_float_images_are_windowed_and_nan_is_black() -> None:
    values = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[0, 0] = np.nan
    values[1, 1] = np.inf
    found = pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0]
    assert found[0, 0] == 0 and found[1, 1] == 255 and found[63, 63] == 255 and 120 < found[32, 0] < 135


def test_a_window_is_the_whole_range_where_the_percentiles_coincide() -> None:
    values = np.zeros((100, 100))
    values[0, 0] = 500.0
    assert percentile_window(values) == (0.0, 500.0)
    assert to_grey(np.full((2, 2), 7.0), 7.0, 7.0).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="no pixel has a finite value"):
        percentile_window(np.full((2, 2), np.nan))


def test_exif_orientation_turns_the_image_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to display
    image = Image.fromarray(np.tile(np.uint8([[0], [250]]), (1, 16)).repeat(8, axis=0))  # dark above bright
    found = np.asarray(decode(encoded(image, "JPEG", exif=exif, quality=95), "x.jpg"))
    assert found[:, :6].mean() > 200 and found[:, -6:].mean() < 50


def test_damaged_exif_does_not_break_an_image() -> None:
    data = encoded(Image.fromarray(RAMP), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert pixels(data).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_the_first_of_several_frames_is_taken(kind: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 100, 200)]
    found = pixels(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert abs(int(found[0, 0, 0]) - 10) <= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "(not an image file that is read: PNG, JPEG, "),
        (b"not an image", " or DICOM)"),
        (png(3, (64, 64))[:60], ""),
        (png(3, (1, 400)), "one side is over 100 times the other"),
    ],
)
def test_broken_images_are_told_by_name_on_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage) as caught:
        decode(data, "somewhere/x.png")
    message = str(caught.value)
    assert message.startswith("somewhere/x.png (") and reason in message and "\n" not in message


def test_postscript_starts_no_program_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(RAMP), "EPS")
    assert Image.open(io.BytesIO(data)).format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program"))
    with pytest.raises(BrokenImage, match=r"^x\.png \(not an image file that is read: PNG, .* or DICOM\)$"):
        decode(data, "x.png")


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PCX", "SGI"])
def test_formats_that_are_not_listed_are_refused(kind: str) -> None:
    with pytest.raises(BrokenImage, match="not an image file that is read"):
        decode(encoded(Image.fromarray(RAMP), kind), "x.png")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "MPO"])
def test_formats_are_told_by_content_and_not_by_name(kind: str) -> None:
    frames = {"save_all": True, "append_images": [Image.fromarray(RAMP)]} if kind == "MPO" else {}
    found = np.asarray(decode(encoded(Image.fromarray(RAMP), kind, **frames), "x.webp").convert("L"))
    assert np.abs(found.astype(int) - RAMP).max() <= (0 if kind != "MPO" else 12)


def test_a_decompression_bomb_is_broken_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = bytearray(png(0))
    bomb[16:29] = header
    bomb[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(BrokenImage, match=r"60000 x 60000|decompression bomb|3600000000 pixels"):
        decode(bytes(bomb), "bomb.png")


@pytest.mark.filterwarnings("error")
def test_a_tiny_image_is_blown_up() -> None:
    transform = PixelTransform(*_preprocess())
    assert transform(decode(png(90, (1, 1)), "x.png")).tolist() == np.full((3, 32, 32), 90).tolist()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_those_of_the_models_own_transform(mode: str) -> None:
    preprocess, mean, std = _preprocess()
    values = np.random.default_rng(0).integers(0, 256, (41, 57, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    expected = (preprocess(image) * std + mean) * 255
    fast = PixelTransform(preprocess, mean, std)(image)
    full = PixelTransform(lambda picture: preprocess(picture), mean, std)(image)
    assert fast.dtype == full.dtype == np.uint8 and fast.shape == (3, 32, 32)
    np.testing.assert_allclose(fast, expected.numpy(), atol=1e-3)
    np.testing.assert_array_equal(fast, full)


def _preprocess() -> tuple:
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    transform = open_clip.transform.image_transform(32, is_train=False, mean=mean, std=std)
    return transform, torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
