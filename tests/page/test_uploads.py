"""Pictures that are sent: bounded, judged by their bytes, and half of one is never taken for one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

# First of all: without the extra [page] it skips this file.
from support.page_client import Client, files_below, form_of, page_request  # isort: split

from sharpzo_edge.page import uploads
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run import files
from support.disk import FailingOs


@pytest.fixture
def png(pictures: Path) -> bytes:
    return (pictures / "cat" / "0.png").read_bytes()


def uploads_left(pictures: Path) -> list[str]:
    return os.listdir(pictures / ".page" / "uploads")


def test_a_picture_arrives_whole(client, pictures, png):
    answer = client.send("/pictures?to=cat", [("new one.png", png)])
    assert answer.json == {"taken": [{"name": "new one.png", "word": "cat/new%20one.png"}], "refused": []}
    assert (pictures / "cat" / "new one.png").read_bytes() == png
    assert uploads_left(pictures) == []


def test_a_picture_of_a_taken_name_replaces_nothing(client, pictures, png):
    before = (pictures / "cat" / "1.png").read_bytes()
    answer = client.send("/pictures?to=cat", [("1.png", png), ("1.png", png)])
    assert [each["word"] for each in answer.json["taken"]] == ["cat/1-2.png", "cat/1-3.png"]
    assert (pictures / "cat" / "1.png").read_bytes() == before


def test_a_kind_is_found_by_the_bytes_and_not_by_the_name(client, png):
    sent = [
        ("a.jpg", png),
        ("page.png", b"<html><script>alert(1)</script></html>"),
        ("b.png", b"\x7fELF" + bytes(100)),
        ("c.jpg", bytes(4) + b"ftypheic" + bytes(100)),
        ("d.jpg", b""),
        ("e.png", b"\x89PN"),
    ]
    answer = client.send("/pictures?to=cat", sent).json
    assert [each["word"] for each in answer["taken"]] == ["cat/a.png"]
    assert [each["name"] for each in answer["refused"]] == ["page.png", "b.png", "c.jpg", "d.jpg", "e.png"]
    assert "HEIC" in answer["refused"][2]["reason"] and answer["refused"][3]["reason"] == "empty"


HOSTILE = ["../../x.png", "/etc/x.png", "C:\\x.png", ".hidden.png", "nul.png", "a%00b.png", "..", "x" * 400]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_in_its_class(client, pictures, png, name):
    before = files_below(pictures.parent)
    word = client.send("/pictures?to=cat", [(name, png)]).json["taken"][0]["word"]
    new = set(files_below(pictures.parent)) - set(before)
    assert len(new) == 1 and new.pop().startswith("photos/cat/")
    assert client.get(f"/thumbnail?of={word.replace('%', '%25')}").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("to", ["", "dog", "..", "../photos/cat", "%2e%2e", ".page", "cat%2F..", "/tmp"])
def test_a_picture_is_sent_to_a_class_or_nowhere(client, pictures, png, to):
    before = files_below(pictures)
    assert client.send(f"/pictures?to={to.replace('%', '%25')}", [("a.png", png)]).status == 404
    assert files_below(pictures) == before


def test_a_picture_that_is_too_large_is_not_kept(client, pictures, png, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 20_000)
    answer = client.send("/pictures?to=cat", [("large.png", png + bytes(30_000)), ("small.png", png)]).json
    assert [each["name"] for each in answer["taken"]] == ["small.png"]
    assert "more than" in answer["refused"][0]["reason"]
    assert uploads_left(pictures) == []


def test_one_upload_has_so_many_pictures(client, png, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_PICTURES", 2)
    answer = client.send("/pictures?to=cat", [(f"{i}.png", png) for i in range(4)]).json
    assert len(answer["taken"]) == 2 and "beyond" in answer["refused"][0]["reason"]


@pytest.mark.parametrize("left", [10, 100, 1000, -50, -1])
def test_half_an_upload_is_no_picture(client, pictures, png, left):
    """The browser goes in the middle: what was whole before is kept, the rest leaves nothing."""
    body = form_of([("a.png", png), ("b.png", png)])
    before = files_below(pictures)
    kind = {"content_type": "multipart/form-data; boundary=sharpzo-test", "origin": f"http://{client.host}"}
    client.ask("POST", "/pictures?to=cat", body, cut=left % len(body), **kind)
    new = set(files_below(pictures)) - set(before)
    assert new <= {"cat/a.png", "cat/b.png"}
    assert all((pictures / name).read_bytes() == png for name in new)
    assert uploads_left(pictures) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"not a form"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nno end"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"x: " + b"y" * 9000 + b"\r\n\r\n\r\n--b--\r\n"),
    ],
)
def test_what_is_no_form_is_refused(client, kind, body):
    answer = client.ask("POST", "/pictures?to=cat", body, content_type=kind, origin=f"http://{client.host}")
    assert answer.status == 400 and "no whole form" in answer.error


FAULTS = [("write", errno.ENOSPC), ("fsync", errno.EIO), ("open", errno.EROFS)]


@pytest.mark.parametrize(("call", "number"), FAULTS)
def test_a_disk_that_fails_keeps_nothing_half(client, pictures, png, monkeypatch, call, number):
    """A full disk, a card that was pulled out, one that cannot be written to."""

    def strike(_: str) -> None:
        raise OSError(number, os.strerror(number))

    before = files_below(pictures)
    client.send("/pictures?to=cat", [("first.png", png)])
    monkeypatch.setattr(files, "os", FailingOs(1, strike, calls=call, lasts=True))
    answer = client.send("/pictures?to=cat", [("second.png", png)])
    monkeypatch.undo()
    assert answer.status == 500 and "Nothing is lost" in answer.error
    assert set(files_below(pictures)) - set(before) == {"cat/first.png"}


def test_what_a_kill_left_is_removed_at_the_next_start(pictures):
    left = pictures / ".page" / "uploads" / "half"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert [len(each) for each in read_folder(pictures).files] == [3, 3]
    with Client(page_request(pictures)):
        assert uploads_left(pictures) == []
