"""The pictures of a report on the page: where they lie now, and where one press moves them."""

from __future__ import annotations

from sharpzo_edge.page.corrections import to_look_at
from sharpzo_edge.page.labels import Labels


def picture(image: str, label: str, answer: str) -> dict[str, object]:
    return {"image": image, "label": label, "answer": answer, "score": 0.9}


def test_a_picture_knows_where_it_may_belong(pictures):
    labels = Labels(pictures)
    labels.set_words("hot_dog", "a hot dog")
    found = to_look_at(
        [picture("cat/0.png", "cat", "a hot dog"), picture("cat/1.png", "cat", "gone class")],
        ["cat/1.png"],
        labels.contents().classes,
        labels,
    )
    assert [(each.word, each.to, each.is_doubtful) for each in found] == [
        ("cat/0.png", "hot_dog", False),
        ("cat/1.png", "", True),
    ]


def test_a_picture_that_was_moved_since_is_not_offered_again(pictures):
    labels = Labels(pictures)
    labels.move(["cat/0.png"], "hot_dog")
    (found,) = to_look_at([picture("cat/0.png", "cat", "hot dog")], [], labels.contents().classes, labels)
    assert found.word == ""


def test_a_report_cannot_name_a_place_outside(pictures):
    """run.json and the log lie on a disk that anybody may have written."""
    labels = Labels(pictures)
    for image in ("../../etc/passwd", "/etc/passwd", "cat", "", ".page/choices/tune.json"):
        (found,) = to_look_at([picture(image, "cat", "hot dog")], [], labels.contents().classes, labels)
        assert found.word == ""
