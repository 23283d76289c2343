"""What is said of every emoji, and how it is put in words.

A *phrase* is a label or a keyword. A *caption* is a phrase in a template, or two of an emoji's phrases one
after the other: then the first narrows what the second means, so that words in front of a name matter,
which is what tuning a prompt lives on. Unicode's subgroup names are in no caption: they are left for the
tasks; the picture tower learns the subgroups as numbers (see train_pictures).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from .emoji import LITTLE_WORDS, Emoji

TEMPLATES = (
    *("a photo of a {}.",) * 4,
    *("{}",) * 2,
    "a {}",
    "a picture of a {}.",
    "an emoji of a {}.",
    "a drawing of the {}.",
    "an icon of {}.",
    "this is {}.",
)
PAIR_TEMPLATES = ("{} {}", "a photo of a {} {}.", "{}, {}.", "the {} {}", "a {}: {}.")
# Long ones, so that contexts of up to 16 vectors meet trained positions.
LONG_TEMPLATES = (
    "a small picture with a plain background, in one of many styles, of a {}.",
    "it is not easy to say, but people would call this one a {}.",
    "somebody has drawn this little picture, and it shows a {}.",
)
MOST_TOKENS = 28
LABELS = 0.45  # share of the captions that say the label, and not a keyword
PAIRS = 0.35  # share that says two phrases
LONG = 0.1  # share of the batches in long templates


def keyword_phrases(emoji: Emoji) -> tuple[str, ...]:
    """Keywords, and the words of the label one by one."""
    words = [w for w in emoji.label.split() if w not in LITTLE_WORDS and len(w) > 1]
    return tuple(dict.fromkeys(w for w in (*emoji.keywords, *words) if w != emoji.label))


@dataclass(frozen=True)
class Phrases:
    """texts (P); said[e]: (number of the label, numbers of the keywords) of emoji e; holds (E, P) bool."""

    texts: list[str]
    said: list[tuple[int, np.ndarray]]
    holds: np.ndarray


def list_phrases(emoji: list[Emoji]) -> Phrases:
    """Every label and keyword once, and who it is true of."""
    spoken = [(e.label, keyword_phrases(e)) for e in emoji]
    texts = list(dict.fromkeys(text for label, keywords in spoken for text in (label, *keywords)))
    number = {text: i for i, text in enumerate(texts)}
    said = [
        (number[label], np.array([number[k] for k in keywords or (label,)])) for label, keywords in spoken
    ]
    holds = np.zeros((len(emoji), len(texts)), bool)
    for row, (label, keywords) in zip(holds, said, strict=True):
        row[label] = True
        row[keywords] = True
    return Phrases(texts, said, holds)


class Speaker:
    """Captions as rows of a compact token table.

    token_ids (R,): CLIP's ids of the rows, sorted, so that EOT, the largest id, stays the largest row.
    """

    def __init__(self, phrases: Phrases, more_words: list[str]) -> None:
        """more_words: names whose tokens get a row as well, though no caption may hold them."""
        self.phrases = phrases
        self._tokenizer = SimpleTokenizer()
        templates = [t.replace("{}", "") for t in (*TEMPLATES, *PAIR_TEMPLATES, *LONG_TEMPLATES)]
        encoded = [self._tokenizer.encode(text) for text in (*phrases.texts, *templates, *more_words, ".")]
        ends = [0, self._tokenizer.sot_token_id, self._tokenizer.eot_token_id]
        self.token_ids = np.unique(np.concatenate([ends, *encoded]).astype(np.int64))

    def rows(self, sentences: list[str]) -> np.ndarray:
        """(N, L) rows: SOS, the sentence cut to fit, EOT, zeros; L is that of the longest."""
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        tokens = [[start, *self._tokenizer.encode(s)[: MOST_TOKENS - 2], end] for s in sentences]
        rows = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
        for row, ids in zip(rows, tokens, strict=True):
            row[: len(ids)] = np.searchsorted(self.token_ids, ids)
        return rows

    def draw(self, emoji: list[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One caption an emoji, each once: rows (T, L), and truth (emoji, T): is it true of the emoji."""
        said = sorted({self._choose(e, rng) for e in emoji})
        one = LONG_TEMPLATES if rng.random() < LONG else TEMPLATES
        sentences = []
        for phrases in said:
            words = [self.phrases.texts[p] for p in phrases]
            templates = PAIR_TEMPLATES if len(words) == 2 else one
            sentences.append(templates[rng.integers(len(templates))].format(*words))
        holds = self.phrases.holds[emoji]
        truth = np.stack([holds[:, list(phrases)].all(1) for phrases in said], 1)
        return self.rows(sentences), truth

    def _choose(self, emoji: int, rng: np.random.Generator) -> tuple[int, ...]:
        label, keywords = self.phrases.said[emoji]
        last = label if rng.random() < LABELS else int(rng.choice(keywords))
        first = int(rng.choice(keywords))
        return (first, last) if rng.random() < PAIRS and first != last else (last,)
