"""Names from a browser: nothing of them reaches the disk but what every disk can hold."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge.errors import UsageError
from sharpzo_edge.page.names import class_folder_name, numbered, parts_of, picture_name, shown, spelt

HOSTILE = [
    *("", " ", ".", "..", "../x", "/etc", "a/b", "a\\b", "C:x", "a\0b", ".hidden", "dot.", "a<b>"),
    *("CON", "nul", "com1", "LPT9.jpg", "aux.txt", "lost+found", "__MACOSX"),
    *("x" * 101, "\u202ecat", "\udcff"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_class_name_is_refused(name):
    with pytest.raises(UsageError, match="cannot name a folder"):
        class_folder_name(name)


def test_a_class_name_may_be_any_plain_words():
    assert class_folder_name("  hot   dog ") == "hot_dog"
    assert class_folder_name("Straße & Co (neu)") == "Straße_&_Co_(neu)"
    assert class_folder_name("e\u0301té") == "été"  # one spelling of a letter


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("../../etc/passwd", "passwd.png"),
        ("C:\\pictures\\cat.jpg", "cat.png"),
        ("/abs/dog.gif", "dog.png"),
        ("..", "picture.png"),
        (".htaccess", "htaccess.png"),
        ("con.jpg", "_con.png"),
        ("a\0b\n.png", "ab.png"),
        ("x" * 300, "x" * 80 + ".png"),
        ("a.php", "a.png"),
        ("<img src=x>.jpg", "_img src=x_.png"),
    ],
)
def test_nothing_of_a_hostile_picture_name_is_left(given_name, kept):
    assert picture_name(given_name, ".png") == kept


@given(st.text())
def test_every_picture_name_is_one_plain_file_name(text):
    name = picture_name(text, ".jpg")
    assert name.endswith(".jpg") and os.path.basename(name) == name
    assert not name.startswith(".") and "\0" not in name and len(os.fsencode(name)) <= 90


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3))
def test_a_place_in_the_folder_comes_back_as_it_was(names):
    parts = tuple(os.fsdecode(each) for each in names)
    word = spelt(*parts)
    assert word.isascii()
    if any(part in (".", "..") or "/" in part or "\0" in part for part in parts):
        with pytest.raises(ValueError):
            parts_of(word)
    else:
        assert parts_of(word) == parts


@pytest.mark.parametrize("word", ["", "a//b", "../x", "%2e%2e/x", "a/%2e%2e", "a%2Fb/c", "a/b%00", "."])
def test_a_place_outside_the_folder_is_none(word):
    with pytest.raises(ValueError):
        parts_of(word)


def test_a_name_that_is_no_text_can_be_shown():
    assert shown(os.fsdecode(b"a\xff.png")) == "a\\xff.png"
    assert "\u202e" not in shown("a\u202egnp.exe")


def test_a_second_picture_of_a_name_gets_a_number():
    assert [numbered("a.b.jpg", n) for n in (1, 2, 11)] == ["a.b.jpg", "a.b-2.jpg", "a.b-11.jpg"]
