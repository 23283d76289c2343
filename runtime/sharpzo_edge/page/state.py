"""What one page is: the folder, the helper, the run, and what was chosen. Made once, from the request."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..process_memory import DEFAULT_BUDGET
from ..requests import PageRequest
from ..run.files import make_folder
from .choices import Choices, load_choices, save_choices
from .demo_folder import copy_demo
from .labels import Labels
from .safety import Door, is_loopback, names_of
from .thumbnails import Thumbnails
from .tuning_run import TuningRun
from .worker import Worker

OUTPUT_ENDING = ".safetensors"
LARGEST_PORT = 65535


@dataclass(frozen=True)
class Page:
    """bundle: the model's folder; default: choices where nothing was chosen yet; title: for people."""

    title: str
    bundle: Path
    labels: Labels
    worker: Worker
    thumbnails: Thumbnails
    run: TuningRun
    default: Choices

    @property
    def choices(self) -> Choices:
        return load_choices(self._choices_file, self.default)

    def choose(self, choices: Choices) -> None:
        """Keep what was chosen, for the next time and the next page."""
        save_choices(self._choices_file, choices)

    @property
    def _choices_file(self) -> Path:
        return self.labels.own_folder("choices") / "tune.json"


def page_of(request: PageRequest) -> Page:
    """Raises UsageError for options that do not go together, SharpzoError when the disk refuses."""
    if (request.bundle is None) != (request.images is None):
        given, missing = ("--bundle", "--images") if request.images is None else ("--images", "--bundle")
        raise UsageError(
            f"{given} is given, and {missing} is not. A page takes both, or neither for the shipped demo. "
            f"Add {missing} FOLDER, or type: sharpzo-edge page"
        )
    if request.bundle is None or request.images is None:
        bundle, images, default = copy_demo()
        title = images.parent.name
    else:
        bundle, images, default = Path(request.bundle), Path(request.images), Choices()
        title = images.resolve().name
    images = images.resolve()
    output = Path(request.output) if request.output else images.with_name(f"{images.name}{OUTPUT_ENDING}")
    try:
        make_folder(images)
    except OSError as error:
        raise UsageError(
            f"--images {images} is no folder and cannot be made ({error.strerror}). It takes a folder that "
            f"holds one folder a class, or that is still empty. Check the path"
        ) from error
    names_file = Path(request.class_names) if request.class_names else None
    labels = Labels(images, names_file)
    labels.clear_uploads()
    budget = request.memory_budget or DEFAULT_BUDGET
    worker = Worker(budget, request.threads)
    run = TuningRun(bundle.resolve(), labels, output.resolve(), budget, request.threads)
    return Page(title, bundle, labels, worker, Thumbnails(labels, worker), run, default)


def door_of(request: PageRequest) -> Door:
    """Raises UsageError for an address or a port that is none."""
    if not 0 <= request.port <= LARGEST_PORT:
        raise UsageError(
            f"--port {request.port} is no port. It takes 0 to {LARGEST_PORT}; 0 is any that is free. "
            f"Try --port 8750"
        )
    token = None if is_loopback(request.host) else secrets.token_urlsafe(24)
    return Door(token, names_of(request.host, request.allow_host), request.port)
