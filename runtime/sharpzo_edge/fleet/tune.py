"""`fleet tune`: a tune whose pictures and towers are those of a fleet.

It runs on any machine that has the bundle.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..commands.outcome import prompt_of, result_of
from ..commands.stages import Found, searched
from ..commands.tune import tune_or_repeat
from ..errors import SharpzoError, UsageError
from ..heads import kernel
from ..pictures.folder import LabelledFolder, class_words
from ..pictures.listing import Listing
from ..requests import FleetTuneRequest, MemberRequest, TuneRequest
from ..run.files import is_there, json_checksum, read_checked_json, write_checked_json
from ..run.folder import WorkFolder
from ..run.progress import Caller, caller_of
from ..run.typed_json import read_dataclass
from ..search.sketched_descent import Sketch
from ..seeds import seed_stream
from ..tuning.answers import BOTH, HEAD, Answers
from ..tuning.loop import Update
from ..tuning.methods import method_by
from ..tuning.prepare import Prepared, check, choose_tangents, prepare
from ..tuning.presets import overrides_of, settings_for
from ..tuning.result import TuneResult
from ..tuning.settings import AUTO, EdgeSettings, TuneSettings
from ..tuning.tuned_prompt import save_prompt
from ..types import LabelledFeatures
from ..version import __version__
from ..wording import counted
from . import heads
from .compared import Compared
from .engine import address_of, security_of
from .fleet_objective import FleetObjective, FleetPictures, FleetTower, points_at_once, quadratic_model
from .line import DaskLine
from .messages import Begin, Measure, Member, Try
from .waves import Fleet, Line

NOT_OF_A_MEMBER = {
    *(f.name for f in dataclasses.fields(MemberRequest)),
    *("output", "class_names", "max_queries", "max_minutes", "patience", "restart", "keep_features"),
    *("checkpoint_seconds", "strict", "report", "none"),
}


@dataclass(frozen=True)
class MemberShare:
    """train, val: pictures that a member has;  counted: whether they counted at the end"""

    name: str
    train: int
    val: int
    counted: bool


@dataclass(frozen=True)
class Kept:
    """fleet.json: what stays as it is when a run goes on, and at last what the fleet did.

    pictures: of each member that was ever there, a checksum
    trips, bytes: round trips, and what the driver sent and received
    """

    tangents: str | None
    sketch: tuple[int, int] | None
    pictures: dict[str, str]
    members: tuple[MemberShare, ...] = ()
    trips: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class FleetResult:
    """The result of a tune, and of the fleet. `fleet tune --json` prints it.

    members: whose pictures the result is of; those that were lost, and counted no more at the end, among them
    """

    tuned: TuneResult
    members: tuple[MemberShare, ...]
    round_trips: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return self.tuned.to_json() | {
            "members": [dataclasses.asdict(member) for member in self.members],
            "round_trips": self.round_trips,
            "bytes": self.bytes,
        }


def fleet_tune(request: FleetTuneRequest) -> tuple[FleetResult, bool]:
    """The result, and whether it was there before. Raises SharpzoError's children."""
    check_fleet(request)
    security = security_of(request.certificates)
    address = address_of(request.scheduler, security)
    caller = caller_of(request.on_progress, request.stop)
    with contextlib.closing(DaskLine(address, security, request.wait_seconds, caller)) as line:
        return tune_over(request, line)


def check_fleet(request: FleetTuneRequest) -> None:
    """Raises UsageError for values of a request that are wrong with any fleet."""
    check(request)
    if request.head == kernel.KIND:
        raise UsageError(
            f"--head {kernel.KIND} cannot be made by a fleet: it needs all pairs of pictures, and they stay "
            f"where they are. It takes one of: {', '.join(heads.KINDS)}, none. Leave --head out"
        )
    for option, value, least in (
        ("--members", request.members, 1),
        ("--wait-seconds", request.wait_seconds, 0),
    ):
        if not value >= least:
            raise UsageError(
                f"{option} {value} is too small. It takes {least} or more. Try {option} {max(1, least)}"
            )


def tune_over(request: FleetTuneRequest, line: Line) -> tuple[FleetResult, bool]:
    """The same over any line."""
    caller = caller_of(request.on_progress, request.stop)
    work = WorkFolder.of(request.output_path)
    kept = None if request.restart else _kept(work)
    run = _Run(request, Fleet(line, caller, request.wait_seconds), kept)
    result, is_repeated = tune_or_repeat(request, run)
    kept = _kept(work) or Kept(None, None, {})
    return FleetResult(result, kept.members, kept.trips, kept.bytes), is_repeated


class _Run:
    """Pictures (see commands.tune.Pictures) that lie on the boards of a fleet."""

    command = "fleet tune"

    def __init__(self, request: FleetTuneRequest, fleet: Fleet, kept: Kept | None):
        self._request, self._fleet, self._kept = request, fleet, kept
        self._bundle = Bundle.open(Path(request.bundle))
        self._folders: tuple[str, ...] = ()

    def prepare(self, request: TuneRequest) -> Prepared:
        fleet, known = self._fleet, self._kept.pictures if self._kept else {}
        fleet.check = self._why_not
        members = fleet.meet(self._request.members, known)
        for seat in fleet.seats.values():
            if seat.refused:
                raise UsageError(seat.refused)
        names = Path(request.class_names) if request.class_names else None
        root = Path(str(request.images))
        words = class_words(root, self._folders, names)
        files = tuple(Listing(root, []) for _ in self._folders)
        folder = LabelledFolder(root, self._folders, tuple(words), files)
        ready = prepare(self._with_tangents(members), folder, in_fleet=True)
        notes = tuple(note for note in ready.notes if note != ready.budget.note)  # no tower runs here
        return dataclasses.replace(ready, notes=notes)

    def refuse_others(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> None:
        """Nothing: the members know what a run of theirs was made of."""

    def tuned(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> TuneResult:
        fleet, bundle = self._fleet, ready.bundle
        fleet.caller = caller
        fleet.known = dict(self._kept.pictures) if self._kept and is_there(work.checkpoint) else {}
        begin = self._begin(ready)
        fleet.begin(begin)
        self._require_every_class(ready)
        settings, sketch = self._with_room(ready.settings)
        ready = dataclasses.replace(ready, settings=settings)
        self._say_who(ready, caller)
        keep = Kept(getattr(settings, "tangents", None), sketch, dict(fleet.known))
        write_checked_json(work.fleet, dataclasses.asdict(keep))

        smoothing = settings.label_smoothing if isinstance(settings, EdgeSettings) else 0.0
        pictures = FleetPictures(fleet, begin.run, smoothing)
        objective = FleetObjective(
            FleetTower(fleet, begin.run),
            pictures,
            ready.prompts,
            ready.context,
            settings.projection(seed_stream(request.seed, "projection"), ready.context),
            points_at_once(len(ready.folder.names), bundle.manifest.embed_dim),
            has_tangents=ready.plan.text.tangents is not None,
        )

        def between(update: Update) -> None:
            if update.kind == "evaluation":
                fleet.admit()

        found = searched(
            request,
            ready,
            objective,
            method_by(settings, pictures.loss, quadratic_model),
            contextlib.nullcontext(),
            LabelledFeatures(np.empty((0, bundle.manifest.embed_dim), np.float32), np.empty(0, np.int64)),
            "the fleet's",
            work,
            caller,
            between,
        )
        answers = self._compared(ready, begin.run, found, caller)
        save_prompt(request.output_path, prompt_of(request, ready, found, answers))
        keep = dataclasses.replace(
            keep,
            pictures=dict(fleet.known),
            members=tuple(
                MemberShare(name, int(seat.part.train.sum()), int(seat.part.val.sum()), seat.counts)
                for name, seat in sorted(fleet.seats.items())
                if seat.part
            ),
            trips=fleet.traffic.trips,
            bytes=fleet.traffic.sent + fleet.traffic.received,
        )
        write_checked_json(work.fleet, dataclasses.asdict(keep))
        result = result_of(request, ready, found, answers)
        return dataclasses.replace(result, plan={})  # each member has its own; here no tower ran

    # Before the work.

    def _why_not(self, member: Member) -> str:
        """Why a member cannot take part; "" if it can. The first one decides the classes."""
        if member.version != __version__:
            return (
                f"it has version {member.version} of sharpzo-edge, and this is {__version__}. All machines "
                f"of a fleet need one version. Install the same one there"
            )
        if member.bundle != self._bundle.checksum:
            return (
                f"it has another bundle than {self._bundle.folder}. All machines of a fleet need the same "
                f"one. Copy it there"
            )
        self._folders = self._folders or member.folders
        if member.folders != self._folders:
            odd = sorted(set(member.folders) ^ set(self._folders))
            return (
                f"its class folders are others than those of the first member: {', '.join(odd[:5])} "
                f"{'is' if len(odd) == 1 else 'are'} not on both. All need folders of the same names; one "
                f"may be empty. Rename or make them there"
            )
        return ""

    def _with_tangents(self, members: Mapping[str, Member]) -> TuneRequest:
        """The request with the precision of tangents that all members can do well: one for all of them."""
        request = self._request
        asked, _ = settings_for(request.preset, overrides_of(request))
        if not isinstance(asked, EdgeSettings) or asked.tangents != AUTO:
            return request
        if self._kept and self._kept.tangents:
            return dataclasses.replace(request, tangents=self._kept.tangents)
        has_int8 = all(member.has_int8 for member in members.values())
        return dataclasses.replace(request, tangents=choose_tangents(self._bundle, AUTO, has_int8))

    def _begin(self, ready: Prepared) -> Begin:
        request = dataclasses.replace(
            self._request, tangents=getattr(ready.settings, "tangents", None), head=ready.head
        )
        options = {
            f.name: getattr(request, f.name)
            for f in dataclasses.fields(TuneRequest)
            if "help" in f.metadata and f.name not in NOT_OF_A_MEMBER
        }
        run = json_checksum(self._bundle.checksum, list(ready.folder.names), options)
        return Begin(run, ready.folder.names, options)

    def _require_every_class(self, ready: Prepared) -> None:
        shots = np.sum([part.shots for part in self._fleet.parts.values()], axis=0)
        if none := [name for name, n in zip(ready.folder.folders, shots.tolist(), strict=True) if not n]:
            raise UsageError(
                f"No member of the fleet has a picture of the class {none[0]}. Every class needs one at "
                f"least, on any of its boards. Add pictures, or remove that folder on all of them"
            )

    def _with_room(self, settings: TuneSettings) -> tuple[TuneSettings, tuple[int, int] | None]:
        """Settings with the sketch that every member's memory has room for."""
        if not isinstance(settings, EdgeSettings) or not settings.tunes:
            return settings, None
        least = min(self._fleet.parts.values(), key=lambda part: part.n_columns)
        kept = self._kept.sketch if self._kept else None
        rank, rounds = kept or (least.rank, least.kept_rounds)
        sketch = Sketch(rank, rounds)
        self._fleet.columns = sketch.n_columns
        return settings.with_sketch(sketch), (rank, rounds)

    def _say_who(self, ready: Prepared, caller: Caller) -> None:
        caller.say(
            f"{counted(len(ready.folder.names), 'class')}, {counted(len(self._fleet.parts), 'member')}"
        )
        for name, part in self._fleet.parts.items():
            caller.say(
                f"{name}: {counted(int(part.train.sum()), 'picture')} to tune on, {part.val.sum()} to "
                f"validate"
            )

    # After the stages.

    def _compared(self, ready: Prepared, run: str, found: Found, caller: Caller) -> Answers:
        """The heads, and what each way to label is worth. Costs three waves with a head, two without."""
        caller.status("fitting the head")
        while True:
            epoch = self._fleet.epoch
            answers = self._compared_once(ready, run, found, caller)
            if self._fleet.epoch == epoch:  # otherwise a member was lost, and some sums have its pictures
                return answers

    def _compared_once(self, ready: Prepared, run: str, found: Found, caller: Caller) -> Answers:
        fleet, kind = self._fleet, ready.head
        has_head = kind != "none" and all(part.has_head for part in fleet.parts.values())
        if kind != "none" and not has_head:
            caller.say("the head is left out: a member has no room for it in its --memory-budget")
        has_prompt = bool(found.best.w.any())
        prompt = found.best.class_features if has_prompt else found.words[:0]
        moments = heads.total(fleet.sums(Measure(run, found.words, prompt, has_head)).values())
        n_val = np.sum([part.val for part in fleet.parts.values()], axis=0)
        ask = Try(run, kind, moments, found.words, prompt)
        head: Any = None
        both: Any = None
        if has_head and moments.counts.all():
            if heads.is_measured(moments):
                tried = heads.total(fleet.sums(ask).values())
                head = heads.best(ask, HEAD, tried)
                both = heads.best(ask, BOTH, tried) if has_prompt else None
            else:
                head = heads.unmeasured(kind, moments, HEAD)
                both = heads.unmeasured(kind, moments, BOTH) if has_prompt else None
        compared = Compared(ask, n_val, head, both)
        finish = compared.finish()
        below = heads.total(fleet.sums(finish).values()).below
        return compared.answers(finish.levels, below, self._request.none)


def _kept(work: WorkFolder) -> Kept | None:
    """None where there is none, or it is damaged."""
    try:
        return read_dataclass(Kept, read_checked_json(work.fleet))
    except (SharpzoError, ValueError):
        return None
