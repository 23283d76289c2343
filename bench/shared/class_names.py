"""Class names that towers are measured with."""

from __future__ import annotations

EUROSAT = (
    "annual crop land",
    "forest",
    "herbaceous vegetation land",
    "highway or road",
    "industrial buildings",
    "pasture land",
    "permanent crop land",
    "residential buildings",
    "river",
    "sea or lake",
)
CONTEXT_WORDS = "a photo of a"


def names_of(n_classes: int) -> list[str]:
    """EuroSAT's ten, or the first of ImageNet's."""
    return list(EUROSAT) if n_classes == len(EUROSAT) else imagenet(n_classes)


def imagenet(n: int) -> list[str]:
    """The first n of open_clip's names for ImageNet's classes. Two of the 1,000 come twice."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    names: list[str] = []
    for name in IMAGENET_CLASSNAMES[:n]:
        names.append(f"another {name}" if name in names else name)
    return names
