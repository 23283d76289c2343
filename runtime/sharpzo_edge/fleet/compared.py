"""What each of the four ways to label is worth on all members' pictures, as `tuning.answers` finds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..heads.leave_one_out import TEMPERATURES, Chosen
from ..tuning.answers import BOTH, HEAD, PROMPT, USES, WORDS, Answers, ByUse, use_of
from ..types import Doubles
from .heads import Choice
from .levels import LEVELS, known_by, levels_of
from .messages import Counts, Finish, Try


@dataclass(frozen=True, eq=False)
class Way:
    """A way to label that was judged by pictures left out.

    right, tops: (2, K) and (2, 2), see Moments;  temperature: by which its logits are multiplied
    is_tuned:    whether it was tuned on the shots, so that it is judged on validation pictures alone
    """

    right: Counts
    tops: Doubles
    temperature: float
    is_tuned: bool


@dataclass(frozen=True, eq=False)
class Compared:
    """What is known of the ways before the last wave.

    tried: with what heads are fitted;  n_val: (K,) validation pictures
    head, both: None without; Chosen where there was nothing to choose by
    """

    tried: Try
    n_val: Counts
    head: Choice | Chosen | None
    both: Choice | Chosen | None

    @property
    def ways(self) -> dict[str, Way]:
        """In the order of USES; those that were judged."""
        moments = self.tried.moments
        calibrated = TEMPERATURES[int(moments.losses.argmin())]
        found = {WORDS: Way(moments.right[0], moments.tops[0], calibrated, is_tuned=False)}
        if len(self.tried.prompt):
            found[PROMPT] = Way(moments.right[1], moments.tops[1], 1.0, is_tuned=True)
        for use, choice in ((HEAD, self.head), (BOTH, self.both)):
            if isinstance(choice, Choice):
                temperature = choice.chosen.head.made_by["temperature"]
                found[use] = Way(choice.right, choice.tops, temperature, is_tuned=use == BOTH)
        return found

    def finish(self) -> Finish:
        """The last thing to ask."""
        temperatures, levels = np.ones(len(USES)), np.zeros((len(USES), LEVELS))
        for use, way in self.ways.items():
            i = USES.index(use)
            n = int((self.n_val if way.is_tuned else self.tried.moments.counts).sum())
            total, squares = way.tops[1] if way.is_tuned else way.tops.sum(axis=0)
            temperatures[i] = t = way.temperature
            levels[i] = levels_of(n, t * total, t * t * squares)
        head, both = (each.option if isinstance(each, Choice) else None for each in (self.head, self.both))
        return Finish(self.tried.run, self.tried, head, both, temperatures, levels)

    def answers(self, levels: Doubles, below: Counts, share: float) -> Answers:
        """levels: see Finish;  below: of all members, see Finished;  share: see answers.compare"""
        counts, ways = self.tried.moments.counts, self.ways
        say = np.where(counts > (1 if HEAD in ways else 0), counts, 0)
        judged_on = {use: self.n_val if way.is_tuned else say for use, way in ways.items()}
        validated = {use: _accuracy(way.right[1], self.n_val) for use, way in ways.items()}
        left_out = {
            use: validated[use] if way.is_tuned else _accuracy(way.right.sum(axis=0), say)
            for use, way in ways.items()
        }
        measured = [use for use in ways if judged_on[use].any()]
        head, both = (each.chosen if isinstance(each, Choice) else each for each in (self.head, self.both))
        use = use_of({WORDS: left_out[WORDS], HEAD: left_out.get(HEAD)}, head)
        known = {
            use: known_by(int(judged_on[use].sum()), levels[USES.index(use)], below[USES.index(use)])
            for use in measured
        }
        threshold = known[use].threshold(share) if use in known else None
        called_none = None
        if threshold is not None:
            i = USES.index(use)
            called_none = float(below[i, np.searchsorted(levels[i], threshold)] / known[use].pictures)
        return Answers(
            use=use,
            head=head,
            both=both,
            left_out=ByUse(**left_out),
            validated=ByUse(**validated),
            covered=ByUse(**{use: float((judged_on[use] > 0).mean()) for use in measured}),
            by_halves=None,
            doubtful=(),
            of_use=None,
            has_say=np.zeros(0, bool),
            words_temperature=ways[WORDS].temperature,
            known=known,
            threshold=threshold,
            called_none=called_none,
            caught=None,  # leaving a class out takes the scatter of its pictures alone, which no member sends
        )


def _accuracy(right: Counts, counts: Counts) -> float | None:
    """Every class alike; None where there are no pictures."""
    there = counts > 0
    return float((right[there] / counts[there]).mean()) if there.any() else None
