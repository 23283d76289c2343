"""The pictures of docs/page.md: small copies of what `make test-page` has drawn.

python bench/page_pictures.py
"""

from __future__ import annotations

from PIL import Image

from shared.machine import ROOT

DRAWN, DOCS = ROOT / "build" / "page", ROOT / "docs"
# Of the page, the file without its ending, and how wide it becomes, in pixels.
PICTURES = (("pictures-desk-light", 760), ("tune-desk-light", 760), ("corrected-phone-light", 300))
COLOURS = 128

for name, width in PICTURES:
    picture = Image.open(DRAWN / f"{name}.png").convert("RGB")
    height = round(picture.height * width / picture.width)
    small = picture.resize((width, height), Image.Resampling.LANCZOS).quantize(COLOURS)
    small.save(DOCS / f"page-{name.partition('-')[0]}.png", optimize=True)
