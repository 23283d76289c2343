"""From folders to classes: which classes, under which names, which pictures."""

import contextlib
import errno
import json
import os
import re
import stat
from pathlib import Path

import pytest

from sharpzo_edge.clip.decoding import UnreadablePictureError
from sharpzo_edge.clip.preprocess import read_crop
from sharpzo_edge.errors import ImagesError, SharpzoError
from sharpzo_edge.pictures import folder as folders
from sharpzo_edge.pictures.folder import Skipped, read_folder
from support.file_names import of_any_script
from support.pictures import preprocess


def make(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


@pytest.mark.parametrize("fewest", [1, 2])
def test_a_folder_one_too_high_is_told_the_right_one(tmp_path, fewest):
    make(tmp_path, "photos/cat/1.jpg", "photos/dog/1.jpg", ".hidden/1.jpg", "__MACOSX/1.jpg", "notes.txt")
    with pytest.raises(ImagesError, match=r"holds 1 folder, .*Type: --images .*/photos$"):
        read_folder(tmp_path, fewest=fewest)
    assert read_folder(tmp_path / "photos", fewest=fewest).names == ("cat", "dog")
    make(tmp_path, "photos/1.jpg")  # pictures in it: then it is a class
    if fewest == 1:
        assert read_folder(tmp_path, fewest=1).names == ("photos",)
    else:
        with pytest.raises(ImagesError, match=r"holds 1 class folder\."):
            read_folder(tmp_path)


def test_folders_one_too_high_are_told_the_right_ones(tmp_path):
    make(tmp_path, "2025/cat/1.jpg", "2025/dog/1.jpg", "2026/cat/1.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImagesError, match=r"holds 3 folders.*Type: --images .*/2025, or: --images .*/2026$"):
        read_folder(tmp_path)
    make(tmp_path, "empty/1.jpg")  # then they may be classes, and the empty ones are named later
    assert read_folder(tmp_path).names == ("2025", "2026", "empty")


def test_classes_and_pictures_are_sorted_without_hidden_ones(tmp_path):
    make(tmp_path, "hot_dog/b.jpg", "hot_dog/a.png", "hot_dog/.c.jpg", "apple/1.jpg", ".git/1.jpg", "x.txt")
    make(tmp_path, "hot_dog/deeper/1.jpg")
    folder = read_folder(tmp_path)
    assert folder.folders == ("apple", "hot_dog")
    assert folder.names == ("apple", "hot dog")
    assert [[p.name for p in files] for files in folder.files] == [["1.jpg"], ["a.png", "b.jpg"]]
    assert all(path.is_file() for files in folder.files for path in files)


def test_class_names_file_says_better_words(tmp_path):
    make(tmp_path / "photos", "n01_a/1.jpg", "hot_dog/1.jpg")
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"n01_a": " zwölf Äpfel "}), encoding="utf-8")
    assert read_folder(tmp_path / "photos", words).names == ("hot dog", "zwölf Äpfel")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 1}', '{"a": null}', "\xff", "[" * 100_000], ids=lambda t: repr(t[:9])
)
def test_a_class_names_file_of_another_form_is_refused(tmp_path, text):
    make(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    words = tmp_path / "words.json"
    words.write_text(text, encoding="latin-1")
    with pytest.raises(ImagesError, match="--class-names"):
        read_folder(tmp_path / "photos", words)


def test_class_names_for_folders_that_are_not_there_are_refused(tmp_path):
    make(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    words = tmp_path / "words.json"
    words.write_text('{"a": "apple", "zebra": "zebra"}')
    with pytest.raises(ImagesError, match="zebra"):
        read_folder(tmp_path / "photos", words)


@pytest.mark.parametrize(
    ("folders", "match"),
    [
        ([], "holds 0 class folders"),
        (["one"], "holds 1 class folder\\."),
        (["hot_dog", "hot dog"], r"\['hot dog', 'hot_dog'\].*'hot dog'"),
        (["cat", "_"], r"\['_'\]"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path, folders, match):
    make(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
    with pytest.raises(ImagesError, match=match):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path):
    make(tmp_path, "file")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ImagesError, match=re.escape(str(path))):
            read_folder(path)


def test_links_are_followed_but_never_into_folders(tmp_path):
    """A link that leads nowhere is listed, so that reading it can say so."""
    make(tmp_path, "elsewhere.jpg", "photos/cat/1.jpg", "photos/dog/1.jpg")
    cat = tmp_path / "photos" / "cat"
    (cat / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (cat / "loop.jpg").symlink_to("loop.jpg")
    (cat / "gone.jpg").symlink_to("nowhere")
    (cat / "up").symlink_to("..")
    os.mkfifo(cat / "pipe")  # opening it would wait for ever
    listed = read_folder(tmp_path / "photos").files[0]
    assert [path.name for path in listed] == ["1.jpg", "gone.jpg", "link.jpg", "loop.jpg"]
    with pytest.raises(UnreadablePictureError, match="a link to a file that is not there"):
        read_crop(cat / "gone.jpg", preprocess())


def test_an_output_among_pictures_is_no_class_or_picture(tmp_path) -> None:
    photos = tmp_path / "photos"
    make(photos, "cat/1.jpg", "dog/1.jpg")
    before = read_folder(photos)
    make(photos, "p.safetensors", "p.safetensors.work/lock", "p.safetensors.work/run.json")
    make(photos, "cat/p.safetensors", "cat/p.safetensors.work/lock")
    make(photos, "net.work/1.jpg")  # a class that only ends so
    after = read_folder(photos)
    assert after.folders == ("cat", "dog", "net.work")
    assert [list(f) for f in after.files[:2]] == [list(f) for f in before.files]


@of_any_script
def test_thousands_of_pictures_are_listed_in_order(tmp_path):
    names = [f"{i:05} 写真 صورة.jpg" for i in range(4000)]
    make(tmp_path, *(f"猫/{name}" for name in reversed(names)), "كلب/1.jpg")
    folder = read_folder(tmp_path)
    assert folder.names == ("كلب", "猫") and [p.name for p in folder.files[1]] == names


def test_skipped_pictures_are_counted_by_reason(tmp_path):
    skipped = Skipped()
    for name, reason in (("a", "not a picture"), ("b", "truncated"), ("c", "not a picture")):
        skipped.add(tmp_path / name, reason)
    first, second = skipped.lines()
    assert first == f"skipped 2 pictures: not a picture (for example {tmp_path / 'a'})"
    assert second.startswith("skipped 1 picture: truncated")


def test_a_class_folder_that_is_a_dead_link_is_said(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "gone").symlink_to("nowhere")
    folder = read_folder(tmp_path)
    assert folder.folders == ("cat", "dog") and folder.dead_links == ("circle", "gone")
    (line,) = folder.skipped_lines()
    assert line.startswith("skipped 2 class folders: a link that leads nowhere") and "circle" in line
    (tmp_path / "circle").unlink(), (tmp_path / "gone").unlink()
    assert read_folder(tmp_path).skipped_lines() == []


def test_an_endless_file_of_class_names_is_refused(tmp_path):
    make(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    (tmp_path / "words").write_bytes(b" " * (folders.NAMES_LIMIT_BYTES + 1))
    with pytest.raises(ImagesError, match="more than 4,194,304 bytes"):
        read_folder(tmp_path / "photos", tmp_path / "words")


# Folders as people have them.


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg"),
            r"--images \S*/train, and measure with eval --images \S*/test$",
        ),
        (("Train/cat/1.jpg", "valid/cat/1.jpg"), r"--images \S*/Train\b"),
        (("training/cat.1.jpg", "testing/cat.2.jpg"), r"not in class folders.*--images .*/training$"),
        (("images/1.jpg", "labels/1.txt"), "kinds of data"),
        (("1.jpg", "2.jpg"), "holds files, and no class folder.*Make a folder for each class"),
    ],
)
def test_other_layouts_are_refused_with_what_to_do(files: tuple[str, ...], says: str, tmp_path) -> None:
    make(tmp_path / "photos", *files)
    with pytest.raises(ImagesError, match=says):
        read_folder(tmp_path / "photos")


def test_what_systems_leave_is_no_class_and_is_counted(tmp_path) -> None:
    photos = tmp_path / "photos"
    make(
        photos,
        "cat/1.jpg",
        "dog/1.jpg",
        "cat/Thumbs.db",
        "dog/desktop.ini",
        "dog/1.jpg.json",
        "dog/more/2.jpg",
    )
    os.mkfifo(photos / "cat" / "2.jpg")
    make(photos, "cat/@eaDir/1.jpg")
    make(photos, "__MACOSX/cat/1.jpg", "@eaDir/x.jpg", "lost+found/y", ".Trash-1000/z.jpg", "stray.jpg")
    folder = read_folder(photos)
    assert folder.folders == ("cat", "dog") and list(map(len, folder.files)) == [1, 1]
    told = " ".join(folder.passed_over)
    assert "3 files: no picture by its name" in told
    assert "1 file: a device, a pipe or a socket (for example" in told
    assert "1 file: a folder in a class folder, which is not looked into (for example" in told
    assert "1 file: beside the class folders, and in none (for example" in told
    assert not folder.skipped_lines()  # --strict is about pictures


@of_any_script
def test_one_name_in_two_normal_forms_is_one_name(tmp_path) -> None:
    make(tmp_path / "photos", "caf\u00e9/1.jpg", "cafe\u0301/1.jpg")
    with pytest.raises(ImagesError, match="Every class needs a name of its own"):
        read_folder(tmp_path / "photos")


REFUSALS = {errno.EACCES: "chmod a+rX", errno.EIO: "look at the disk", errno.ESTALE: "network share"}


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("what", ["photos", "photos/dog", "photos/train"])
def test_a_folder_that_cannot_be_listed_is_not_called_missing(what, number, tmp_path, monkeypatch):
    names = ("train", "test") if what.endswith("train") else ("cat", "dog")
    make(tmp_path, *(f"photos/{name}/{i}.jpg" for name in names for i in range(3)))
    real, told = os.scandir, []

    def failing(path):
        told.append(Path(path))
        last = 2 if what.endswith("train") else 1  # train is looked into once more, for classes
        if told.count(tmp_path / what) >= last and Path(path) == tmp_path / what:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(SharpzoError) as refused:
        read_folder(tmp_path / "photos")
    said = str(refused.value)
    assert type(refused.value) is SharpzoError
    assert said.startswith(f"Cannot read {tmp_path / what}: {os.strerror(number)}.")
    assert REFUSALS[number] in said and "--images" not in said


def test_a_link_to_what_the_system_refuses_is_not_called_dead(tmp_path, monkeypatch):
    """In place of a class folder it is an error; in place of a picture, reading it says why."""
    make(tmp_path, "photos/cat/1.jpg", "photos/dog/1.jpg", "disk/pigs/1.jpg")
    (tmp_path / "photos" / "cat" / "2.jpg").symlink_to(tmp_path / "disk" / "pigs" / "1.jpg")
    real = os.stat

    def failing(path, *given, **named):
        if "disk" in os.path.realpath(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *given, **named)

    class Entry:
        def __init__(self, entry):
            self._entry = entry

        def __getattr__(self, name):
            return getattr(self._entry, name)

        def is_dir(self):
            return stat.S_ISDIR(failing(self._entry.path).st_mode)

        is_file = stat = lambda self: failing(self._entry.path)

    @contextlib.contextmanager
    def scandir(path):
        with real_scandir(path) as entries:
            yield map(Entry, entries)

    real_scandir = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert [len(files) for files in read_folder(tmp_path / "photos").files] == [2, 1]
    (tmp_path / "photos" / "pig").symlink_to(tmp_path / "disk" / "pigs")
    with pytest.raises(SharpzoError, match=f"Cannot read {tmp_path}/photos/pig: Input/output error"):
        read_folder(tmp_path / "photos")
