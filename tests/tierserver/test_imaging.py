import io
import zlib

import numpy as np
import pytest
from PIL import Image

from tierserver import imaging
from tierserver.errors import RequestError, TooLarge
from tierserver.messages import Preprocess


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RAW = Preprocess("gray", 2, 3, dtype="uint8")


def test_values_are_scaled_and_normalised_per_channel():
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    spec = Preprocess("rgb", 2, 3, scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(1, 2, 4))
    prepared = imaging.preprocess(encode(Image.fromarray(pixels)), spec)
    expected = (pixels / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
    assert prepared.shape == (1, 3, 2, 3) and prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[0], expected.transpose(2, 0, 1), rtol=1e-5)
    last = imaging.preprocess(encode(Image.fromarray(pixels)), Preprocess("rgb", 2, 3, layout="nhwc"))
    np.testing.assert_array_equal(last[0], pixels)


def test_stretch_and_crop_differ_as_they_should():
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    encoded = encode(Image.fromarray(wide))
    cropped = imaging.preprocess(encoded, Preprocess("gray", 4, 4, resize="shorter_side_crop", dtype="uint8"))
    stretched = imaging.preprocess(encoded, Preprocess("gray", 4, 4, dtype="uint8"))
    assert (cropped == 200).all() and stretched.min() < 50


def test_the_shorter_side_is_scaled_before_the_centre_is_cut():
    rows = np.repeat(np.arange(40, dtype=np.uint8), 20).reshape(40, 20)  # each row its own number
    spec = Preprocess("gray", 10, 10, resize="shorter_side_crop", shorter_side=20, dtype="uint8")
    prepared = imaging.preprocess(encode(Image.fromarray(rows)), spec)
    np.testing.assert_array_equal(prepared[0, 0, :, 0], np.arange(15, 25))
    covering = imaging.preprocess(encode(Image.fromarray(rows)), Preprocess("gray", 10, 10, "shorter_side_crop"))
    np.testing.assert_allclose(covering[0, 0, (0, -1), 0], (10.5, 28.5), atol=0.6)


def test_imagenets_crop_is_that_of_two_steps():
    rng = np.random.default_rng(4)
    image = Image.fromarray(rng.integers(0, 255, (6, 9, 3), np.uint8)).resize((600, 400), Image.Resampling.BICUBIC)
    spec = Preprocess("rgb", 224, 224, resize="shorter_side_crop", shorter_side=232, dtype="uint8")
    prepared = imaging.preprocess(encode(image), spec)[0].transpose(1, 2, 0).astype(int)
    scaled = image.resize((348, 232), Image.Resampling.BILINEAR)
    expected = np.asarray(scaled.crop((62, 4, 286, 228))).astype(int)
    assert np.abs(prepared - expected).max() <= 2 and np.abs(prepared - expected).mean() < 0.05


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_an_image_is_centred_on_its_own_mean(layout):
    pixels = np.random.default_rng(2).integers(0, 255, (5, 7, 3), np.uint8)
    spec = Preprocess("rgb", 5, 7, center=True, std=(2, 2, 2), mean=(9, 9, 9), layout=layout)
    prepared = imaging.preprocess(encode(Image.fromarray(pixels)), spec)[0]
    prepared = prepared.transpose(1, 2, 0) if layout == "nchw" else prepared
    np.testing.assert_allclose(prepared, (pixels - pixels.mean(axis=(0, 1))) / 2, atol=1e-4)


@pytest.mark.parametrize(("resize", "side"), [("stretch", 20), ("shorter_side_crop", 9)])
def test_a_shorter_side_that_does_not_cover_is_refused(resize, side):
    with pytest.raises(RequestError, match="must cover 10 x 8"):
        imaging.check(Preprocess("gray", 10, 8, resize=resize, shorter_side=side))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    pixels = np.array([[0, 255], [0, 255], [0, 255]], np.uint8)
    upright = imaging.preprocess(encode(Image.fromarray(pixels), exif=exif), RAW)
    np.testing.assert_array_equal(upright[0, 0], [[0, 0, 0], [255, 255, 255]])


def test_sixteen_bits_keep_their_high_byte():
    deep = np.array([[0, 256, 65535], [32768, 128, 512]], np.uint16)
    prepared = imaging.preprocess(encode(Image.fromarray(deep)), RAW)
    np.testing.assert_array_equal(prepared[0, 0], [[0, 1, 255], [128, 0, 2]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_every_mode_becomes_the_asked_colour(mode, color):
    image = Image.new("L", (3, 2), 255).convert(mode)
    prepared = imaging.preprocess(encode(image), Preprocess(color, 2, 3, dtype="uint8"))
    assert prepared.shape == (1, 1 if color == "gray" else 3, 2, 3) and (prepared == 255).all()


def test_cmyk_and_transparent_palettes_are_taken():
    cmyk = encode(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "JPEG")
    assert imaging.preprocess(cmyk, RAW).max() < 10
    palette = encode(Image.new("P", (3, 2), 0), transparency=b"\0\1")
    assert imaging.preprocess(palette, RAW).shape == (1, 1, 2, 3)


def test_a_bomb_is_refused_before_it_is_decoded():
    bomb = bytearray(encode(Image.new("1", (3, 2))))
    bomb[16:24] = (100_000).to_bytes(4, "big") * 2
    checksum = zlib.crc32(bytes(bomb[12:29]))
    bomb[29:33] = checksum.to_bytes(4, "big")
    with pytest.raises(TooLarge, match="100000 x 100000"):
        imaging.preprocess(bytes(bomb), RAW)


@pytest.mark.parametrize("container", ["JPEG", "TIFF"])
def test_a_small_file_of_many_scans_is_refused_before_it_is_decoded(container):
    jpeg = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    bomb = jpeg[:-2] + 200 * scan + jpeg[-2:]
    if container == "TIFF":
        tiff = encode(Image.new("RGB", (64, 64)), "TIFF", compression="jpeg")
        bomb = tiff + 200 * scan
    with pytest.raises(TooLarge, match=r"20\d scans|21\d scans"):
        imaging.preprocess(bomb, RAW)
    assert imaging.preprocess(jpeg, RAW).shape == (1, 1, 2, 3)


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -200])
def test_what_is_no_image_is_refused(cut):
    picture = encode(Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40), np.uint8)))
    with pytest.raises(RequestError, match="not a decodable image"):
        imaging.preprocess(picture[:cut], RAW)
