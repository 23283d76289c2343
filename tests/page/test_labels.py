"""What the page does to the folder: nothing is lost, nothing leaves it, no link is followed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from sharpzo_edge.errors import SharpzoError, UsageError
from sharpzo_edge.page.labels import ASIDE, Labels, NotThereError
from sharpzo_edge.pictures.folder import read_folder
from support.page_client import files_below
from support.processes import finish


@pytest.fixture
def labels(pictures: Path) -> Labels:
    return Labels(pictures)


def test_a_move_is_a_rename_of_the_same_bytes(labels, pictures):
    before = (pictures / "cat" / "0.png").read_bytes()
    assert labels.move(["cat/0.png"], "hot_dog") == ["hot_dog/0-2.png"]
    assert (pictures / "hot_dog" / "0-2.png").read_bytes() == before
    assert not (pictures / "cat" / "0.png").exists()


def test_a_move_never_replaces_a_picture(labels, pictures):
    before = {name: (pictures / name).read_bytes() for name in files_below(pictures)}
    labels.move([f"cat/{i}.png" for i in range(3)], "hot_dog")
    after = [(pictures / name).read_bytes() for name in files_below(pictures)]
    assert sorted(after) == sorted(before.values())


def test_what_is_put_aside_is_kept_and_comes_back(labels, pictures):
    assert labels.put_aside(["cat/1.png"]) == [f"{ASIDE}/cat/1.png"]
    assert [len(files) for files in read_folder(pictures).files] == [2, 3]  # no command sees it
    found, n = labels.pictures_aside(0, 10)
    assert n == labels.contents().aside == 1
    assert labels.move([found[0].word], "cat") == ["cat/1.png"]
    assert labels.contents().aside == 0


def test_a_class_is_renamed_with_its_words(labels, pictures):
    labels.set_words("cat", "a small cat")
    assert labels.rename_class("cat", "house cat") == "house_cat"
    assert json.loads((pictures / "class-names.json").read_text()) == {"house_cat": "a small cat"}
    folder = read_folder(pictures, pictures / "class-names.json")
    assert folder.names == ("hot dog", "a small cat")


@pytest.mark.parametrize("name", ["hot_dog", "Hot dog", "HOT_DOG", "class-names.json", "../x", "con"])
def test_a_class_name_that_is_taken_or_none_is_refused(labels, pictures, name):
    labels.set_words("cat", "a cat")
    before = files_below(pictures)
    for change in (lambda: labels.make_class(name), lambda: labels.rename_class("cat", name)):
        with pytest.raises(UsageError):
            change()
    assert files_below(pictures) == before


def test_a_class_can_change_its_capitals(labels):
    assert labels.rename_class("cat", "Cat") == "Cat"


def test_words_without_their_folder_are_forgotten(labels, pictures):
    labels.set_words("cat", "a cat")
    (pictures / "cat").rename(pictures / "tiger")
    labels.tidy_words()
    assert not (pictures / "class-names.json").exists()  # with it, tune would refuse the folder


def test_a_names_file_that_is_none_is_not_replaced(labels, pictures):
    (pictures / "class-names.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="cannot be changed"):
        labels.set_words("cat", "a cat")
    assert (pictures / "class-names.json").read_text() == "[1, 2]"


HOSTILE = [
    *("../secret.png", "cat/../../secret.png", "/etc/passwd", "cat", "cat/", "cat/0.png/x", "cat/%2e%2e/x"),
    *(".page/choices", ".put-aside/../cat", "a%00/b", "cat/.0.png", "x/0.png"),
]


@pytest.mark.parametrize("word", HOSTILE)
def test_no_path_leads_out_of_the_folder(labels, pictures, word):
    (pictures.parent / "secret.png").write_bytes(b"secret")
    (pictures / "cat" / ".0.png").write_bytes(b"hidden")
    with pytest.raises(NotThereError):
        labels.find(word)
    with pytest.raises(NotThereError):
        labels.move([word], "hot_dog")
    with pytest.raises(NotThereError):
        labels.move(["cat/0.png"], word if word != "cat" else "dog")


def test_links_and_devices_are_left_alone(labels, pictures):
    outside = pictures.parent / "outside"
    outside.mkdir()
    (outside / "0.png").write_bytes(b"secret")
    (pictures / "link").symlink_to(outside)
    (pictures / "cat" / "link.png").symlink_to(outside / "0.png")
    os.mkfifo(pictures / "cat" / "pipe.png")
    for word in ("link/0.png", "cat/link.png", "cat/pipe.png"):
        with pytest.raises(NotThereError):
            labels.find(word)
    with pytest.raises(NotThereError):
        labels.move(["cat/0.png"], "link")
    assert [each.is_link for each in labels.contents().classes] == [False, False, True]
    assert os.listdir(outside) == ["0.png"]


def test_an_own_folder_that_is_a_link_is_not_used(labels, pictures):
    outside = pictures.parent / "outside"
    outside.mkdir()
    (pictures / ASIDE).symlink_to(outside)
    with pytest.raises(UsageError, match="no folder of its own"):
        labels.put_aside(["cat/0.png"])
    assert os.listdir(outside) == []


def test_a_change_from_outside_is_seen(labels, pictures):
    assert [each.pictures for each in labels.contents().classes] == [3, 3]
    (pictures / "dog").mkdir()
    (pictures / "cat" / "0.png").rename(pictures / "dog" / "0.png")
    assert [(each.folder, each.pictures) for each in labels.contents().classes] == [
        ("cat", 2),
        ("dog", 1),
        ("hot_dog", 3),
    ]


def test_a_file_name_that_is_no_text_can_be_moved(labels, pictures):
    name = os.fsdecode(b"\xff\xfe.png")
    (pictures / "cat" / "0.png").rename(pictures / "cat" / name)
    word = labels.pictures("cat", 0, 10)[0][-1].word
    labels.move([word], "hot_dog")
    assert (pictures / "hot_dog" / name).exists()


def test_a_folder_that_cannot_be_written_loses_nothing(labels, pictures, monkeypatch):
    def pulled_out(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sharpzo_edge.page.labels.move_to_free", pulled_out)
    before = files_below(pictures)
    with pytest.raises(SharpzoError, match=r"Nothing is lost.*Check the disk or card"):
        labels.move(["cat/0.png"], "hot_dog")
    assert files_below(pictures) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from sharpzo_edge.page import labels as module
n, moved = int(sys.argv[2]), module.move_to_free
def move(*arguments):
    global n
    if n == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    n -= 1
    moved(*arguments)
module.move_to_free = move
module.Labels(Path(sys.argv[1])).move([f"cat/{i}.png" for i in range(3)], "hot_dog")
"""


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_kill_in_the_middle_of_a_move_loses_nothing(pictures, n):
    before = sorted((pictures / name).read_bytes() for name in files_below(pictures))
    finish([sys.executable, "-c", KILLED, pictures, n], code=-9)
    assert sorted((pictures / name).read_bytes() for name in files_below(pictures)) == before
    assert sum(len(files) for files in read_folder(pictures).files) == 6
