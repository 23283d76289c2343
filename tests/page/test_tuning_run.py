"""A run from the page: `tune` as the command line runs it, with its lock, its exact resume and its bytes."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from sharpzo_edge.demo import BUNDLE
from support.page_client import Client, page_request
from support.processes import run

FORM = {"preset": "demo", "shots": "3", "val": "1", "seed": "0", "max_minutes": ""}


@pytest.fixture
def demo_client(images: Path, tmp_path: Path):
    """A page on two classes of the demo."""
    shutil.copytree(images, tmp_path / "photos")
    with Client(page_request(tmp_path / "photos")) as found:
        yield found


def wait_for(client: Client, *states: str, seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while (state := client.page.run.state) not in states:
        assert time.monotonic() < end, (state, client.page.run.status, client.page.run.error)
        client.run(asyncio.sleep(0.05))
    return state


def test_a_folder_labelled_here_tunes_to_the_same_bytes(demo_client, images, tmp_path):
    """As the same folder by hand, with the command that the page shows."""
    first, second = sorted(path.name for path in images.iterdir())
    labels = demo_client.page.labels
    wrong = sorted((labels.root / first).iterdir())[0].name
    (labels.root / first / wrong).rename(labels.root / second / wrong)
    by_hand = tmp_path / "by-hand" / "photos"
    shutil.copytree(images, by_hand)

    demo_client.post("/move", {"pictures": f"{second}/{wrong}", "to": first})
    demo_client.post("/class", {"class": second, "words": "an animal"})
    (by_hand / "class-names.json").write_text(json.dumps({second: "an animal"}))
    assert demo_client.get("/thumbnail?of=" + f"{first}/{wrong}").status == 200
    assert demo_client.post("/start", FORM).status == 200
    wait_for(demo_client, "finished")

    run(
        *(
            "tune",
            "--bundle",
            BUNDLE,
            "--images",
            by_hand,
            "--output",
            by_hand.with_name("photos.safetensors"),
        ),
        *("--class-names", by_hand / "class-names.json", "--preset", "demo", "--shots", "3", "--val", "1"),
        *("--threads", "1"),
    )
    assert (tmp_path / "photos.safetensors").read_bytes() == (
        by_hand.with_name("photos.safetensors").read_bytes()
    )


def test_a_run_is_stopped_and_goes_on_to_the_same_bytes(demo_client, tmp_path):
    run_of = demo_client.page.run
    form = {**FORM, "preset": "edge", "seed": "3", "shots": "8"}
    assert demo_client.post("/start", form).status == 200
    while not run_of.log.looks:
        wait_for(demo_client, "running")
        client_waits(demo_client)
        run_of.log.read()
    assert demo_client.post("/stop").status == 200
    assert run_of.state == "interrupted" and run_of.error == ""
    assert demo_client.page.choices.seed == 3  # what was chosen is there for "go on", also for the next page
    demo_client.post("/start", {**form, "max_minutes": "1"})
    wait_for(demo_client, "finished")
    whole = tmp_path / "whole.safetensors"
    run(
        *("tune", "--bundle", BUNDLE, "--images", tmp_path / "photos", "--output", whole),
        *("--shots", "8", "--val", "1", "--seed", "3", "--threads", "1", "--max-minutes", "1"),
    )
    assert run_of.output.read_bytes() == whole.read_bytes()


def client_waits(client: Client) -> None:
    client.run(asyncio.sleep(0.02))


def test_tune_again_equals_a_new_run(demo_client, tmp_path):
    """It keeps the encoded features, and nothing else."""
    form = {**FORM, "shots": "20"}
    demo_client.post("/start", form)
    wait_for(demo_client, "finished")
    first, second = sorted(each.word for each in demo_client.page.labels.contents().classes)
    picture = demo_client.page.labels.pictures(first, 0, 1)[0][0].word
    demo_client.post("/move", {"pictures": picture, "to": second})
    demo_client.post("/start", {"again": "yes"})  # with what was chosen before
    demo_client.run(demo_client.page.run.ended())
    assert demo_client.page.run.state == "finished"
    new = tmp_path / "new.safetensors"
    run(
        *("tune", "--bundle", BUNDLE, "--images", tmp_path / "photos", "--output", new),
        *("--preset", "demo", "--shots", "20", "--val", "1", "--threads", "1"),
    )
    assert demo_client.page.run.output.read_bytes() == new.read_bytes()


def test_one_run_at_a_time(demo_client, tmp_path):
    demo_client.post("/start", {**FORM, "preset": "edge"})
    again = demo_client.post("/start", FORM)
    assert again.status == 400 and "at work" in again.error
    with Client(page_request(tmp_path / "photos")) as other:  # a second page, or the first one after a kill
        wait_for(other, "running")
        assert "at work" in other.post("/start", FORM).error
        other.post("/stop")
        assert other.page.run.state == "interrupted"


def test_the_plan_comes_before_the_start(demo_client):
    found = demo_client.post("/plan", FORM).json
    assert found["queries"] == 1200 and found["plan"]["peak_mib"] <= 128 and found["likely"]
    assert found["command"].startswith("sharpzo-edge tune --bundle ")
    assert demo_client.page.run.state == "none"


@pytest.mark.parametrize(
    ("name", "value"),
    [("shots", "0"), ("shots", "-1"), ("val", "x"), ("seed", "1e3"), ("max_minutes", "0"), ("preset", "rm")],
)
def test_a_choice_that_cannot_be_is_refused(demo_client, name, value):
    answer = demo_client.post("/start", {**FORM, name: value})
    assert answer.status == 400 and "It takes" in answer.error
    assert demo_client.page.run.state == "none"


def test_what_tune_refuses_is_told_in_its_own_words(client, pictures):
    shutil.rmtree(pictures / "cat")
    assert "at least 2" in client.post("/plan", FORM).json["problem"]
    client.post("/start", FORM)
    wait_for(client, "none", "interrupted")
    client.run(asyncio.wait_for(client.page.run.ended(), 60))
    assert "at least 2" in client.page.run.error


def test_the_picture_to_try_is_not_kept(demo_client, images):
    assert "no tuned prompt" in demo_client.send("/try", [("a.png", b"x")]).error
    demo_client.post("/start", {**FORM, "preset": "head"})
    wait_for(demo_client, "finished")
    picture = next(images.rglob("*.png")).read_bytes()
    found = demo_client.send("/try", [("a.png", picture)]).json
    assert len(found["labels"]) == 2 and sum(found["scores"]) == pytest.approx(1) and found["seconds"] > 0
    assert "not a picture" in demo_client.send("/try", [("a.png", b"hello")]).error
    assert "damaged" in demo_client.send("/try", [("a.png", picture[:200])]).error
    assert list(demo_client.page.labels.own_path("uploads").iterdir()) == []
