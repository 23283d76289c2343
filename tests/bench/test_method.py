"""What a method gets: a template as tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from accuracy.harness.coop_layout import TEMPLATES
from accuracy.methods.method import Problem
from sharpzo_edge.clip.bundle import MERGES_FILE, Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, context_from_words
from sharpzo_edge.clip.tokenizer import Tokenizer
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.types import LabelledFeatures

OUTSIDE_THE_VOCABULARY = ("fgvc", "dtd", "eurosat")  # of the shipped bundle, which was cut


def problem(bundle: Bundle, template: str, *names: str) -> Problem:
    nothing = LabelledFeatures(np.empty((0, bundle.manifest.embed_dim), np.float32), np.empty(0, np.int64))
    context = context_from_words(bundle, bundle.manifest.initial_context)
    tower: Any = None  # nothing is computed
    return Problem("t", bundle, tower, 1, names, context, nothing, nothing, seed=0, template=template)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in OUTSIDE_THE_VOCABULARY])
def test_a_template_becomes_the_tokens_that_it_spells(name: str) -> None:
    bundle, of_class = Bundle.open(BUNDLE), "golf ball"
    whole = problem(bundle, TEMPLATES[name], of_class).spelt_out()
    (ids,) = checked_token_ids(bundle, whole.class_names, len(whole.context))
    (expected,) = Tokenizer(bundle.verified(MERGES_FILE)).encode([TEMPLATES[name].format(of_class)])
    n_before = len(whole.context)
    assert list(expected[n_before:]) == list(ids[:-1])  # the last one ends the text
    assert whole.context.tobytes() == bundle.token_embeddings(expected[:n_before]).tobytes()


def test_without_a_template_the_initial_words_stay() -> None:
    bundle = Bundle.open(BUNDLE)
    whole = problem(bundle, "", "golf ball")
    assert whole.spelt_out() is whole
