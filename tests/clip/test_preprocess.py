"""From a picture file to pixels: which part is cut out, and which numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sharpzo_edge.clip import preprocess as preprocessing
from sharpzo_edge.clip.decoding import UnreadablePictureError
from sharpzo_edge.clip.manifest import Preprocess
from sharpzo_edge.clip.preprocess import read_crop, to_pixels, view
from support.pictures import picture, preprocess

# How a file of each mode that Pillow can open is written.
FORMATS = {
    **dict.fromkeys(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "LAB"], "TIFF"),
    **dict.fromkeys(["I", "I;16", "I;16B"], "TIFF"),
    "YCbCr": "JPEG",  # Pillow before 13 writes TIFFs of it that it cannot read
}


@given(
    mode=st.sampled_from(sorted(FORMATS)),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.sampled_from([(32, 32), (17, 40), (48, 16), (1, 1)]),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill_color=st.sampled_from([0, 127, 255]),
)
@settings(max_examples=250, deadline=None, database=None)
def test_every_picture_becomes_a_crop_of_the_bundles_size(
    tmp_path_factory, mode, width, height, size, resize_mode, interpolation, fill_color
):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    try:
        picture(mode, width, height).save(path, FORMATS[mode])
    except OSError:  # this Pillow cannot write the mode
        assert mode in ("RGBX", "I;16B")
        return
    crop = read_crop(path, preprocess(size, resize_mode, interpolation, fill_color))
    assert crop.shape == (*size, 3)
    assert crop.dtype == np.uint8


def test_a_picture_of_the_right_size_is_not_touched(tmp_path):
    levels = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_crop(tmp_path / "a.png", preprocess()), levels)


def test_the_middle_is_cut_and_the_border_is_filled(tmp_path):
    stripes = np.zeros((32, 96, 3), np.uint8)
    stripes[:, 32:64] = 200  # the middle third, all of the crop
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    assert (read_crop(tmp_path / "wide.png", preprocess()) == 200).all()

    Image.new("RGB", (64, 32), (200, 200, 200)).save(tmp_path / "white.png")
    crop = read_crop(tmp_path / "white.png", preprocess(resize_mode="longest", fill_color=9))
    assert (crop[8:24] == 200).all() and (crop[:8] == 9).all() and (crop[24:] == 9).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_comes_before_everything(tmp_path, orientation):
    upright = np.random.default_rng(2).integers(0, 256, (40, 64, 3)).astype(np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # what a phone held upright writes: turn clockwise to view
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "stored.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    for mode in ("shortest", "longest"):
        how = preprocess(resize_mode=mode)
        np.testing.assert_array_equal(
            read_crop(tmp_path / "stored.png", how), read_crop(tmp_path / "upright.png", how)
        )


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_not_cut(tmp_path, suffix):
    levels = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(levels).save(path)
    expected = np.round(levels / 257)
    crop = read_crop(path, preprocess())
    assert np.abs(crop - expected[..., None]).max() <= 0.5 + 1e-6
    assert len(np.unique(crop)) == 32


@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 1)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_a_very_long_picture_is_never_resized_whole(tmp_path, monkeypatch, shape, size):
    """Shortest edge to 224, a PNG of 200 bytes would become 224 x 6,720,000 pixels: 4.5 GB."""
    levels = np.full((*shape, 3), 10, np.uint8)
    levels[shape[0] // 4 : -(shape[0] // 4) or None, shape[1] // 4 : -(shape[1] // 4) or None] = 200
    Image.fromarray(levels).save(tmp_path / "long.png")
    made = []
    resize = Image.Image.resize

    def watched(picture, to, *arguments, **options):
        made.append(to[0] * to[1])
        return resize(picture, to, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert (read_crop(tmp_path / "long.png", preprocess(size)) == 200).all()  # the middle
    assert made and max(made) <= 100 * size[0] * size[1]


def test_the_extension_says_nothing(tmp_path):
    levels = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "really_a_png.jpg", "PNG")
    np.testing.assert_array_equal(read_crop(tmp_path / "really_a_png.jpg", preprocess()), levels)


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, format_name):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black", "black")]
    path = tmp_path / "moving"
    frames[0].save(path, format_name, save_all=True, append_images=frames[1:])
    assert (read_crop(path, preprocess()) > 250).all()


def test_a_print_shops_jpeg_comes_out_in_its_colours(tmp_path):
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    crop = read_crop(tmp_path / "red.jpg", preprocess()).astype(int)
    assert (crop[..., 0] > 200).all() and (crop[..., 1:] < 50).all()


def test_to_pixels_by_hand():
    how = Preprocess((1, 2), "RGB", (0.5, 0.0, 0.2), (0.5, 1.0, 0.1), "bicubic", "squash", 0)
    crops = np.array([[[[0, 51, 255], [255, 0, 51]]]], np.uint8)
    pixels = to_pixels(crops, how)
    assert pixels.shape == (1, 3, 1, 2) and pixels.dtype == np.float32 and pixels.flags.c_contiguous
    expected = [[[[-1.0, 1.0]], [[0.2, 0.0]], [[8.0, 0.0]]]]
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_floating_point_levels_are_refused(tmp_path):
    """Nothing says what scale they have, and Pillow would make most of them black."""
    path = tmp_path / "heat.tif"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    with pytest.raises(UnreadablePictureError, match="floating-point"):
        read_crop(path, preprocess())


def test_eight_bits_in_a_wide_integer_stay_as_they_are():
    levels = np.arange(0, 256, dtype=np.int32).reshape(16, 16)
    crop = preprocessing.crop(Image.fromarray(levels, mode="I"), preprocess((16, 16)))
    assert np.array_equal(np.asarray(crop)[..., 0], levels)


def test_a_view_is_a_part_of_the_crop_perhaps_mirrored():
    plain = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    square, whole = 0.5, 1.0  # the shape, and all of the area
    assert np.array_equal(view(plain, np.array([whole, square, 0, 0, 0.5])), plain)
    assert np.array_equal(view(plain, np.array([whole, square, 0, 0, 0.4])), plain[:, ::-1])
    ramp = np.zeros((24, 32, 3), np.uint8) + np.arange(32, dtype=np.uint8)[:, np.newaxis]
    left, right = (view(ramp, np.array([0, square, across, 0, 0.5])) for across in (0.0, 1.0))
    assert left.max() < 25 and right.min() > 6 and left.shape == plain.shape and left.dtype == np.uint8
    for draw in np.random.default_rng(1).random((50, 5)):
        assert view(plain, draw).shape == plain.shape


@pytest.mark.parametrize("levels", [[70_000, 0], [-5, 200]])
def test_levels_of_more_than_16_bits_are_refused_not_clipped(levels, tmp_path):
    Image.fromarray(np.array([levels] * 40, np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadablePictureError, match="32-bit levels, whose scale is not known"):
        read_crop(tmp_path / "a.tiff", preprocess())
