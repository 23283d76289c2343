"""A picture's file: what is refused and why, and what decoding may take."""

import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, UnidentifiedImageError, features

from sharpzo_edge.clip import decoding
from sharpzo_edge.clip import preprocess as preprocessing
from sharpzo_edge.clip.decoding import ORIENTATION, UnreadablePictureError, decoding_bytes
from sharpzo_edge.clip.preprocess import read_crop
from support.pictures import picture, preprocess


def jpeg():
    out = io.BytesIO()
    picture("RGB", 200, 200).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("half.jpg", jpeg()[: len(jpeg()) // 2], "truncated or damaged"),
        ("headless.jpg", jpeg()[:30], "not a picture|truncated or damaged"),
        ("empty.jpg", b"", "not a picture"),
        ("text.jpg", b"this is not a picture\n", "not a picture"),
    ],
)
def test_what_is_no_picture_is_skipped_with_a_reason(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadablePictureError, match=reason):
        read_crop(tmp_path / name, preprocess())


def test_what_is_no_file_is_skipped_too(tmp_path):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for path in (tmp_path, tmp_path / "missing.jpg", tmp_path / "loop.jpg"):
        with pytest.raises(UnreadablePictureError):
            read_crop(path, preprocess())


def test_a_picture_without_permission_is_skipped(tmp_path):
    path = tmp_path / "mine.jpg"
    path.write_bytes(jpeg())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user, root or like it, may read everything")
    with pytest.raises(UnreadablePictureError, match="permission"):
        read_crop(path, preprocess())


@pytest.mark.parametrize("edge", [10_000, 60_000])
def test_100_megapixels_are_refused_by_their_header(tmp_path, monkeypatch, edge):
    """A PNG that says it has them, and holds nothing: it must not even be looked for."""
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(UnreadablePictureError, match=r"100 megapixels, too many|too many pixels"):
        read_crop(tmp_path / "huge.png", preprocess(), 64 << 20)


def test_a_decompression_bomb_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 200 // 2 - 1)
    (tmp_path / "bomb.jpg").write_bytes(jpeg())
    with pytest.raises(UnreadablePictureError, match="too many pixels"):
        read_crop(tmp_path / "bomb.jpg", preprocess())


def test_what_decoding_takes_is_known_before_and_limited(tmp_path):
    """Each of these is 1.2 megapixels; the bounds are what its own kind takes."""
    flat = Image.new("RGB", (1200, 1000), "red")
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    saved = {
        "plain.png": (flat, {}),
        "clear.png": (flat.convert("RGBA"), {}),
        "grey.png": (flat.convert("L"), {}),
        "plain.jpg": (flat, {}),
        "turned.jpg": (flat, {"exif": turned}),
        "progressive.jpg": (flat, {"progressive": True, "subsampling": 2}),
    }
    taken = {}
    for name, (whole, options) in saved.items():
        whole.save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            taken[name] = decoding_bytes(opened, preprocess())
    mega = 1200 * 1000
    assert taken["grey.png"] < taken["plain.png"] == taken["plain.jpg"] < taken["clear.png"]
    assert taken["turned.jpg"] == taken["clear.png"] == taken["plain.png"] + 4 * mega
    assert taken["progressive.jpg"] == taken["plain.jpg"] + 3 * mega  # 1.5 coefficients a pixel, 2 bytes each
    for name, n_bytes in taken.items():
        assert read_crop(tmp_path / name, preprocess(), n_bytes).shape == (*preprocess().size, 3)
        with pytest.raises(UnreadablePictureError, match="1 megapixels, too many for the budget"):
            read_crop(tmp_path / name, preprocess(), n_bytes - 1)


def test_a_large_jpeg_is_judged_by_the_scale_it_decodes_at(tmp_path):
    Image.new("RGB", (4000, 3000), "red").save(tmp_path / "phone.jpg")
    assert read_crop(tmp_path / "phone.jpg", preprocess(), 8 << 20).shape == (*preprocess().size, 3)


def test_a_large_jpeg_decodes_small_and_nearly_the_same(tmp_path, monkeypatch):
    """Reduced decoding changes a crop by a few levels of 255, and only that of a large JPEG."""
    y, x = np.mgrid[0:2400, 0:3200]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((91, 140), (37, 61), (300, 23))]
    path = tmp_path / "large.jpg"
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(path, quality=90)
    small = read_crop(path, preprocess((224, 224))).astype(int)
    monkeypatch.setattr(decoding, "LARGE_JPEG_PIXELS", 1 << 40)
    full = read_crop(path, preprocess((224, 224))).astype(int)
    difference = np.abs(small - full)
    assert 0 < difference.max() <= 4 and difference.mean() <= 0.5


def saved(format_name):
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if format_name in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    picture("RGB", 24, 20).save(out, format_name, **options)
    return out.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "ICO", "TGA"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_a_crop_or_a_reason(tmp_path, format_name):
    original = saved(format_name)
    path = tmp_path / f"mutant.{format_name.lower()}"

    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=6
        ),
        length=st.integers(0, len(original)) | st.just(len(original)),
    )
    @settings(max_examples=100, deadline=None, database=None)
    def check(changes, length):
        data = bytearray(original)
        for at, byte in changes:
            data[at] = byte
        path.write_bytes(data[:length])
        try:
            assert read_crop(path, preprocess()).shape == (32, 32, 3)
        except UnreadablePictureError as reason:
            assert str(reason)

    check()


def test_a_program_in_postscript_is_not_run(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(UnreadablePictureError, match="not a picture"):
        read_crop(path, preprocess())


@pytest.mark.parametrize("error", [struct.error, zlib.error, AttributeError, ZeroDivisionError, RuntimeError])
def test_whatever_a_decoder_raises_is_a_reason(error, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(path)

    def broken(*_):
        raise error("x")

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    with pytest.raises(UnreadablePictureError, match="truncated or damaged"):
        read_crop(path, preprocess())


def read_png(path, **options):
    return read_crop(path, preprocess((32, 32)), **options)


def test_a_png_with_much_text_is_a_good_picture(tmp_path):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "x" * (3 << 20), zip=True)
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "a.png", pnginfo=info)
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    assert (read_png(tmp_path / "a.png") == 90).all()
    assert limit == PngImagePlugin.MAX_TEXT_CHUNK  # of the program that uses us


EMOJI = "\U0001f600"  # with one of them in it, every letter of a string takes 4 bytes


def text_chunks(kind, n_bytes, n_chunks):
    """Chunks of a PNG which hold so many bytes of text together, when they are unpacked."""
    text = ("a" * (n_bytes // n_chunks - 4) + EMOJI).encode()
    packed, international = zlib.compress(text), b"\0\1\0\0\0"
    data = {
        "tEXt": (b"tEXt", b"k%d\0" + text),
        "zTXt": (b"zTXt", b"k%d\0\0" + packed),
        "iTXt": (b"iTXt", b"k%d" + international + packed),
        "iTXt, not packed": (b"iTXt", b"k%d\0\0\0\0\0" + text),
        "XMP": (b"iTXt", b"XML:com.adobe.xmp" + international + packed),
        "unknown": (b"teSt", text),
    }
    name, content = data[kind]
    for i in range(n_chunks):
        told = name + content.replace(b"%d", b"%d" % i, 1)
        yield struct.pack(">I", len(told) - 4) + told + struct.pack(">I", zlib.crc32(told))


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt, not packed", "XMP", "unknown"])
@pytest.mark.parametrize("n_chunks", [1, 7])
@pytest.mark.parametrize("is_behind", [False, True])
def test_a_pngs_text_keeps_to_the_budget(kind, n_chunks, is_behind, tmp_path):
    """Measured: whether such a picture is read or refused, it takes no more than it may."""
    out = io.BytesIO()
    Image.new("RGB", (200, 200)).save(out, "PNG")
    plain = out.getvalue()
    place = len(plain) - 12 if is_behind else 33  # before the last chunk, or after the first
    n_read = 0
    for mib in (0.125, 0.5, 2, 6, 20):
        chunks = b"".join(text_chunks(kind, int(mib * 2**20), n_chunks))
        (tmp_path / "a.png").write_bytes(plain[:place] + chunks + plain[place:])
        tracemalloc.start()
        try:
            read_png(tmp_path / "a.png", most_bytes=8 << 20)
            n_read += 1
        except UnreadablePictureError as refused:
            assert str(refused) == "megabytes of text, too many for the budget"
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 8 << 20
        assert read_png(tmp_path / "a.png", most_bytes=256 << 20).shape == (32, 32, 3)
    assert 1 <= n_read < 5 or (kind == "unknown" and n_chunks == 7)


def with_much_before_its_pixels(kind, n_bytes):
    """A small picture that carries so many bytes more, and a decoder would read them with its header."""
    out = io.BytesIO()
    form = "PNG" if kind in ("ICO", "ICNS") else kind.split(",")[0]
    options = {"lossless": True, "xmp": b"x" * n_bytes} if form == "WEBP" else {}
    if form == "TIFF":
        options["tiffinfo"] = {270: "x" * n_bytes}
    Image.new("RGB", (64, 64)).save(out, form, **options)
    plain = out.getvalue()
    if form == "JPEG":
        marker, begin = (b"\xff\xe1", b"Exif\0\0") if "EXIF" in kind else (b"\xff\xe5", b"")
        segment = marker + b"\xff\xff" + begin + b"x" * (65533 - len(begin))
        return plain[:2] + segment * -(-n_bytes // len(segment)) + plain[2:]
    if form == "GIF":
        place = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
        return plain[:place] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * (n_bytes // 256) + b"\0" + plain[place:]
    if form == "PPM":
        return plain[:3] + b"#" + b"x" * n_bytes + b"\n" + plain[3:]
    if form == "PNG":
        text = b"tEXt" + b"k\0" + b"x" * n_bytes
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        plain = plain[:33] + chunk + plain[33:]
        if kind == "ICNS":
            return b"icns" + struct.pack(">I4sI", 16 + len(plain), b"ic07", 8 + len(plain)) + plain
        return struct.pack("<3H4B2H2I", 0, 1, 1, 64, 64, 0, 0, 1, 24, len(plain), 22) + plain
    return plain


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, EXIF", "GIF", "TIFF", "WEBP", "PPM", "ICO", "ICNS"])
def test_what_stands_before_the_pixels_keeps_to_the_budget(kind, tmp_path):
    """Measured: of a picture with much beside its pixels no more is read than the memory allows."""
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = tmp_path / "a"
    path.write_bytes(with_much_before_its_pixels(kind, 3 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadablePictureError, match="too many for the budget") as refused:
            read_png(path, most_bytes=6 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.is_lasting
    assert peak < 6 << 20
    assert read_png(path, most_bytes=256 << 20).shape == (32, 32, 3)


def test_a_12_megapixel_png_fits_the_default_budget(tmp_path):
    """Of ViT-B-16: 128 MiB without the floor and the names of a hundred classes."""
    Image.new("RGB", (4056, 3040)).save(tmp_path / "a.png", compress_level=1)
    assert read_crop(tmp_path / "a.png", preprocess((224, 224)), most_bytes=62 << 20).shape == (224, 224, 3)


@pytest.mark.parametrize("error", [OSError("decoder zip not available"), ImportError("libjpeg.so.62")])
def test_a_pillow_that_lacks_a_part_is_no_damage(error, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(path)

    def lacking(*_):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", lacking)
    with pytest.raises(UnreadablePictureError, match="Pillow is not complete here") as failed:
        read_png(path)
    assert not failed.value.is_lasting


@pytest.mark.parametrize(
    ("name", "head"), [("AVIF", b"\0\0\0\x1cftypavif"), ("WebP", b"RIFF\0\1\0\0WEBPVP8 ")]
)
def test_a_format_that_this_pillow_lacks_is_named(name, head, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(head)

    def unknown(*_):
        raise UnidentifiedImageError

    monkeypatch.setattr(Image, "open", unknown)
    for known, says in ((False, f"{name}, which cannot be read here"), (True, "not a picture")):
        monkeypatch.setattr(decoding.features, "check", lambda _, known=known: known)
        with pytest.raises(UnreadablePictureError, match=says):
            read_png(path)


def test_a_disk_that_fails_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", failing)
    with pytest.raises(UnreadablePictureError, match=r"cannot be read \(Input/output error\)") as failed:
        read_png(path)
    assert not failed.value.is_lasting


def test_threads_leave_the_programs_warnings_alone(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    crop = preprocessing.crop

    def slow_crop(picture, how):
        time.sleep(0.1)  # the other thread begins meanwhile
        return crop(picture, how)

    monkeypatch.setattr(preprocessing, "crop", slow_crop)
    before = list(warnings.filters)
    threads = [threading.Thread(target=read_crop, args=(tmp_path / "a.png", preprocess())) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
