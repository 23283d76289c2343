"""What a member is, whatever carries its messages: a board's bundle, pictures and towers, and its answers.

It outlives the connection: what was encoded and opened for a run stays when the scheduler goes and comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.towers import TextTower
from ..errors import BudgetError, SharpzoError, UsageError
from ..pictures.features import TrainingFeatures, training_features
from ..pictures.folder import LabelledFolder, read_folder
from ..processor import this_processor
from ..requests import MemberRequest, TuneRequest
from ..run.folder import WorkFolder
from ..run.progress import Caller
from ..tuning.answers import Doubtful
from ..tuning.prepare import Prepared, prepare
from ..types import Floats, LabelledFeatures
from ..version import __version__
from ..wording import counted
from . import messages as m
from .drawn import Drawn
from .sums import MemberPictures, counts_of


@dataclass(eq=False)
class _Session:
    """A run that this board takes part in. tower: None while it is closed"""

    run: str
    ready: Prepared
    part: m.Part
    pictures: MemberPictures
    drawn: Drawn
    files: tuple[str, ...]
    tower: TextTower | None = None


class TooFewPicturesError(UsageError):
    """A class has fewer pictures than the board demands before it answers. The text names no file."""


class Board:
    """Answers messages, one at a time."""

    def __init__(self, request: MemberRequest, caller: Caller):
        """Raises SharpzoError for a bundle or a folder of pictures that cannot be used."""
        self._request, self._caller = request, caller
        self.bundle = Bundle.open(Path(request.bundle))
        self.folder = read_folder(Path(request.images))
        self.work = WorkFolder.of(Path(request.images))
        self._session: _Session | None = None
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder that keeps what was encoded.

        Raises UsageError when another member holds it, or it cannot be made.
        """
        with contextlib.ExitStack() as held:
            try:
                self.work.make()
            except SharpzoError as error:
                raise UsageError(
                    f"The folder {self.work.path} cannot be made ({error.__cause__}). A member keeps there "
                    f"what it has encoded, beside its pictures, so that folder must be writable. Change "
                    f"that, or make a folder elsewhere with a link to the pictures, and pass it as --images"
                ) from error
            try:
                held.enter_context(self.work.locked(self._caller.say))
            except UsageError as error:
                raise UsageError(
                    f"Another process works with these pictures: it holds {self.work.path}. One member a "
                    f"folder is allowed. End that one, or pass another folder as --images"
                ) from error
            yield

    def answer(self, data: bytes) -> bytes:
        """The answer to a message; what goes wrong is an answer too."""
        with self._lock:
            try:
                return m.packed(self._answer(m.unpacked(data)))
            except (BudgetError, TooFewPicturesError) as error:
                reason = str(error)
            except Exception as error:  # whatever it is: its text may name files, and stays here
                self._caller.say(f"error: {error}" if isinstance(error, SharpzoError) else f"{error!r}")
                reason = "it shows the reason itself, since that may name its files. Look at that board"
            return m.packed(m.Refused(reason, is_other_run=False))

    def close(self) -> None:
        """End the run, after the answer that is being made."""
        with self._lock:
            if self._session:
                self._close_tower(self._session)
            self._session = None

    def _answer(self, ask: Any) -> m.Answer:
        if isinstance(ask, m.Hello):
            has_int8 = this_processor().has_int8_dot
            return m.Member(__version__, self.bundle.checksum, self.folder.folders, bool(has_int8))
        if isinstance(ask, m.Begin):
            return self._begun(ask)
        session = self._session
        if session is None or session.run != ask.run:
            return m.Refused("it has not begun this run", is_other_run=True)
        match ask:
            case m.Features():
                return m.FeaturesFound(self._features(session, ask.contexts))
            case m.Tangents():
                found = self._tangents(session, ask.context, ask.directions)
                with np.errstate(over="ignore"):
                    return m.HalvesFound(found.astype(np.float16)) if ask.in_half else m.TangentsFound(found)
            case m.Judge():
                return session.pictures.judged(ask.features, ask.smoothing)
            case m.Derive():
                return m.Derived(session.pictures.derived(ask.features, ask.columns, ask.smoothing))
            case m.Model():
                return session.pictures.modelled(ask.features, ask.columns, ask.smoothing)
            case m.Measure():
                self._close_tower(session)
                return session.drawn.moments(ask.words, ask.prompt, ask.with_head)
            case m.Try():
                return session.drawn.tried(ask.kind, ask.moments, ask.words, ask.prompt)
            case m.Finish():
                finished, doubtful = session.drawn.finished(ask)
                self._show(session, doubtful)
                return finished
        raise ValueError(f"no member answers a {type(ask).__name__}")

    def _begun(self, begin: m.Begin) -> m.Part:
        if self._session and self._session.run == begin.run:
            return self._session.part
        self.close()
        self.work.make()
        request = self._tune_request(begin.options)
        self.folder = read_folder(Path(request.images))  # pictures may have come
        ready = prepare(request, replace(self.folder, names=begin.names), in_fleet=True)
        for note in ready.notes:
            self._caller.say(f"note: {note}")
        n_classes = len(begin.names)
        there, classes = with_pictures(self.folder)
        found = training_features(
            ready.bundle,
            there,
            ready.few_shot,
            ready.plan.image,
            self.work,
            self._caller,
            on_disk=ready.plan.features_on_disk,
            keep=True,
        )
        found = relabelled(found, classes)
        drawn = found.drawn
        part = m.Part(
            train=counts_of(found.train, n_classes),
            shots=counts_of(LabelledFeatures(drawn.features, drawn.labels[: found.n_shots]), n_classes),
            val=counts_of(found.val, n_classes),
            pictures=found.checksum,
            rank=ready.plan.sketch.rank,
            kept_rounds=ready.plan.sketch.kept_rounds,
            has_head=ready.plan.has_head,
        )
        self._require_enough(part)
        scale = ready.bundle.manifest.logit_scale
        self._session = _Session(
            begin.run,
            ready,
            part,
            MemberPictures(found.train, found.val, scale),
            Drawn(drawn, found.n_shots, scale),
            found.files,
        )
        self._caller.say(
            f"takes part in a run with {counted(len(found.train), 'picture')} to tune on and "
            f"{len(found.val)} to validate"
        )
        return part

    def _tune_request(self, options: dict[str, Any]) -> TuneRequest:
        """The run as this board would make it alone. Raises SharpzoError for an option unknown here."""
        own = self._request
        known = {f.name for f in dataclasses.fields(TuneRequest)}
        if odd := sorted(set(options) - known):
            raise SharpzoError(
                f"The run of the fleet has options that this member does not know: {odd}. All machines must "
                f"have the same version of sharpzo-edge. Update this one, and start the member again"
            )
        return TuneRequest(
            own.bundle,
            own.images,
            own.images,
            threads=own.threads,
            memory_budget=own.memory_budget,
            **options,
        )

    def _require_enough(self, part: m.Part) -> None:
        """Raises TooFewPicturesError."""
        least, n = self._request.least_pictures, part.shots + part.val
        for name, found in zip(self.folder.folders, n.tolist(), strict=True):
            if 0 < found < least:
                raise TooFewPicturesError(
                    f"Its class {name} has {counted(found, 'picture')}, and it was started with "
                    f"--least-pictures {least}: sums over so few would tell too much. Add pictures of that "
                    f"class to this board, take the others away, or start it with a smaller number"
                )

    def _tower(self, session: _Session) -> TextTower:
        if session.tower is None:
            session.tower = TextTower(session.ready.bundle, session.ready.plan.text)
        return session.tower

    def _close_tower(self, session: _Session) -> None:
        if session.tower:
            session.tower.close()
        session.tower = None

    def _features(self, session: _Session, contexts: Floats) -> Floats:
        tower, step = self._tower(session), session.ready.plan.text.tower.batch
        parts = [contexts[i : i + step] for i in range(0, len(contexts), step)]
        return np.concatenate([tower.class_features(part, session.ready.prompts) for part in parts])

    def _tangents(self, session: _Session, context: Floats, directions: Floats) -> Floats:
        tower, step = self._tower(session), session.ready.plan.text.tower.batch
        parts = [directions[i : i + step] for i in range(0, len(directions), step)]
        prompts = session.ready.prompts
        return np.concatenate([tower.class_feature_tangents(context, part, prompts) for part in parts])

    def _show(self, session: _Session, doubtful: Sequence[Doubtful]) -> None:
        """Say which of this board's own pictures look least like their label."""
        names = self.folder.folders
        for each in doubtful:
            self._caller.say(
                f"look at {session.files[each.number]}: it is labelled {names[each.label]}, and looks like "
                f"{names[each.answer]}"
            )


def with_pictures(folder: LabelledFolder) -> tuple[LabelledFolder, np.ndarray]:
    """The classes that have files, as a folder of their own, and their numbers among all."""
    numbers = [k for k, files in enumerate(folder.files) if len(files)]
    if not numbers:
        raise UsageError(
            f"{folder.root} has no picture in any class folder. A member needs one at least. Add pictures"
        )

    def taken(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[k] for k in numbers)

    there = replace(
        folder, folders=taken(folder.folders), names=taken(folder.names), files=taken(folder.files)
    )
    return there, np.array(numbers, np.int64)


def relabelled(found: TrainingFeatures, classes: np.ndarray) -> TrainingFeatures:
    """The same pictures with the numbers of classes among all. classes: (classes with files,)"""
    train, val = (replace(part, labels=classes[part.labels]) for part in (found.train, found.val))
    return replace(found, train=train, val=val)
