"""The page's helper, a process of its own: `python -m sharpzo_edge.page.worker_process BUDGET THREADS`.

It reads one order a line, a JSON object, and answers each with one line. It has the memory budget that a run
has, and ends when its standard input does. Only here the page meets numpy, Pillow and onnxruntime.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImagesError, SharpzoError
from ..process_memory import govern, return_freed_blocks

if TYPE_CHECKING:
    from ..commands.classifier import Classifier

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: as in the command line

THUMBNAIL, VIEW = (176, 32 << 10), (960, 2 << 20)  # pixels of the longer side, and the most bytes
LABELS = 5  # of a prediction


class Orders:
    """What the helper can do, by the name of the order. budget: as after --memory-budget.

    A classifier stays open from one picture to the next. Other orders close it: they have the same budget.
    """

    def __init__(self, budget: str | None, threads: int):
        self._budget, self._threads = budget, threads
        self._classifier: Classifier | None = None
        self._opened_for: tuple[object, ...] = ()

    def thumbnail(self, picture: str, to: str, reason_to: str) -> dict[str, Any]:
        """Write a thumbnail, or why there is none where that will not change."""
        from ..clip.decoding import UnreadablePictureError
        from ..run.files import replacing

        try:
            jpeg = self._jpeg(picture, *THUMBNAIL)
        except UnreadablePictureError as error:
            if error.is_lasting:
                with replacing(Path(reason_to), is_lasting=False) as file:
                    file.write(f"{error}\n".encode())
            return {"reason": str(error)}
        with replacing(Path(to), is_lasting=False) as file:
            file.write(jpeg)
        return {}

    def view(self, picture: str) -> dict[str, Any]:
        """The whole picture, as large as a screen shows it."""
        from ..clip.decoding import UnreadablePictureError

        try:
            return {"jpeg": base64.b64encode(self._jpeg(picture, *VIEW)).decode()}
        except UnreadablePictureError as error:
            return {"reason": str(error)}

    def predict(self, picture: str, bundle: str, prompt: str) -> dict[str, Any]:
        """Labels and their scores, whether it is none of them, and the seconds that it took."""
        started = time.monotonic()
        found = self._opened(bundle, prompt)(picture, top=LABELS)
        seconds = time.monotonic() - started
        return {
            "labels": found.labels,
            "scores": found.scores,
            "none": found.none,
            "seconds": round(seconds, 3),
        }

    def report(self, output: str) -> dict[str, Any]:
        """The parts of a run's report as HTML, and its pictures as JSON: the page shows those itself."""
        from ..report.figures import report_of
        from ..report.render import PARTS, render_part
        from ..report.source import source_of_tune

        self._close()
        report = report_of(source_of_tune(Path(output)))
        pictures = {picture.image: dataclasses.asdict(picture) for picture in report.pictures}
        return {
            "parts": {name: str(render_part(report, name)) for name in PARTS if name != "pictures"},
            "pictures": list(pictures.values()),
            "doubtful": [picture.image for picture in report.doubtful],
        }

    def _opened(self, bundle: str, prompt: str) -> Classifier:
        """The one that is open, unless a run has written another prompt meanwhile."""
        from ..commands.classifier import Classifier

        file = os.stat(prompt)
        wanted = bundle, prompt, file.st_ino, file.st_mtime_ns
        if self._classifier is None or self._opened_for != wanted:
            self._close()
            self._classifier = Classifier(bundle, prompt, threads=self._threads, memory_budget=self._budget)
            self._opened_for = wanted
        return self._classifier

    def _close(self) -> None:
        if self._classifier:
            self._classifier.close()
            self._classifier = None

    def _jpeg(self, picture: str, side: int, longest: int) -> bytes:
        """Raises UnreadablePictureError."""
        from ..clip.preprocess import thumbnail
        from ..clip.sessions import onnxruntime_version
        from ..memory.budget import budget_of
        from ..process_memory import MIB

        self._close()
        room = budget_of(self._budget, onnxruntime_version()).room_mib * MIB
        try:
            return thumbnail(Path(picture), side, longest, room)
        finally:
            return_freed_blocks()


def answer(orders: Orders, line: str) -> dict[str, Any]:
    """What to say to one order. Whatever goes wrong is an answer too."""
    try:
        order = json.loads(line)
        do: Callable[..., dict[str, Any]] = getattr(orders, order.pop("do"))
        return do(**order)
    except ImagesError as error:
        return {"reason": str(error)}
    except SharpzoError as error:
        return {"error": str(error)}
    except Exception as error:
        return {
            "error": f"The page's helper failed: {type(error).__name__}: {error}. This is a defect of "
            f"sharpzo-edge, please report it. The page goes on: try again, or load it anew"
        }


def main() -> None:
    govern()
    budget, threads = sys.argv[1:]
    orders = Orders(budget, int(threads))
    for line in sys.stdin:
        print(json.dumps(answer(orders, line)), flush=True)


if __name__ == "__main__":
    main()
