"""Words that follow a number, the names of the four ways to label, and text that may be anybody's."""

import re

# Controls, and marks that turn the direction of writing: a file's name may hold them.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NAMED = {"words": "the words", "prompt": "the prompt", "head": "the head", "both": "prompt and head"}


def counted(n: float, what: str) -> str:
    """A number of things, by the word for one of them.

    >>> counted(1, "query"), counted(1990, "query"), counted(0, "picture")
    ('1 query', '1,990 queries', '0 pictures')
    """
    if n != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{n:,} {what}"


def percent(fraction: float, digits: int = 1) -> str:
    return f"{100 * fraction:.{digits}f} %"


def printable(line: str) -> str:
    """The same line, with an escape in place of what would move the cursor or break the line."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], line)


def shortened(text: str, longest: int = 60) -> str:
    """Its beginning, where it has more than so many characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
