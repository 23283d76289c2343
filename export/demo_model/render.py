"""Step 2: every package's pictures -> one array (N, 64, 64, 4) uint8 and a table of hexcodes and styles."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from .emoji import Emoji, without_style
from .styles import PACKAGE_OF

SIZE = 64
PICTURES_FILE = "pictures.npy"
TABLE_FILE = "pictures.json"
SHORTCODES = ("cldr", "emojibase", "iamcal", "github", "joypixels", "emojibase-legacy")


def render(node_modules: Path, emoji: list[Emoji], folder: Path) -> None:
    """Write folder/pictures.npy and pictures.json, a list of [hexcode, style] in the same order."""
    known = {each.hexcode for each in emoji}
    pictures, table = [], []
    for style, read in STYLES.items():
        seen = set()
        for hexcode, picture in read(node_modules, emoji):
            if hexcode in known and hexcode not in seen and picture is not None:
                seen.add(hexcode)
                pictures.append(picture)
                table.append([hexcode, style])
        print(f"{style}: {len(seen)} pictures", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / PICTURES_FILE, np.stack(pictures))
    (folder / TABLE_FILE).write_text(json.dumps(table), encoding="utf-8")


def read_pictures(folder: Path) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(N, 64, 64, 4) uint8 and N pairs (hexcode, style)."""
    table = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    return np.load(folder / PICTURES_FILE), [(hexcode, style) for hexcode, style in table]


def on_white(picture: np.ndarray) -> Image.Image:
    """(64, 64, 4) uint8 -> the same over white, RGB."""
    image = Image.fromarray(picture, "RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


Pictures = Iterator[tuple[str, np.ndarray | None]]


def _datasource(package: str, folder: str) -> Callable[..., Pictures]:
    """emoji-datasource-*: PNG of 64 px, listed in emoji.json."""

    def read(node_modules: Path, emoji: list[Emoji]) -> Pictures:
        root = node_modules / package
        for entry in json.loads((root / "emoji.json").read_text(encoding="utf-8")):
            path = root / "img" / folder / "64" / entry["image"]
            if path.exists():
                yield without_style(entry["non_qualified"] or entry["unified"]), _raster(path)

    return read


def _folder(package: str, inside: str, pattern: str) -> Callable[..., Pictures]:
    """A folder of files named by their hexcode."""

    def read(node_modules: Path, emoji: list[Emoji]) -> Pictures:
        for path in sorted((node_modules / package / inside).glob(pattern)):
            hexcode = without_style(path.stem)
            picture = _vector(path.read_text(encoding="utf-8")) if path.suffix == ".svg" else _raster(path)
            yield hexcode, picture

    return read


def _iconify(package: str) -> Callable[..., Pictures]:
    """@iconify-json/*: SVG bodies under names; chars.json has their hexcodes, or the names are matched."""

    def read(node_modules: Path, emoji: list[Emoji]) -> Pictures:
        root = node_modules / package
        icons = json.loads((root / "icons.json").read_text(encoding="utf-8"))
        chars = json.loads((root / "chars.json").read_text(encoding="utf-8"))
        if chars:
            pairs: list[tuple[str | None, str]] = [
                (without_style(code), name) for code, name in chars.items()
            ]
        else:
            names = _names(node_modules, emoji)
            pairs = [(_match(name, names), name) for name in [*icons["icons"], *icons.get("aliases", {})]]
        for hexcode, name in pairs:
            if hexcode and has_picture(icons, name):
                yield hexcode, draw(icons, name)

    return read


def has_picture(icons: dict[str, Any], name: str) -> bool:
    """Whether an iconify set has a drawing of this name. An alias with a rotation is another picture."""
    return name in icons["icons"] or set(icons.get("aliases", {}).get(name, {})) == {"parent"}


def draw(icons: dict[str, Any], name: str) -> np.ndarray | None:
    """One picture of an iconify set; None where it cannot be drawn."""
    icon = icons["icons"].get(name) or icons["icons"].get(icons["aliases"][name]["parent"])
    if icon is None:
        return None
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return _vector(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" color="#000">'
        f"{icon['body']}</svg>"
    )


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def _names(node_modules: Path, emoji: list[Emoji]) -> dict[str, str]:
    """Squashed names -> hexcode: labels first, then Unicode's names, then shortcodes of several sites."""
    data = node_modules / "emojibase-data"
    names: dict[str, str] = {}
    for each in emoji:
        names.setdefault(_squash(each.label), each.hexcode)
    unicode = json.loads((data / "meta" / "unicode-names.json").read_text(encoding="utf-8"))
    for hexcode, name in unicode.items():
        names.setdefault(_squash(name), without_style(hexcode))
    for site in SHORTCODES:
        codes = json.loads((data / "en" / "shortcodes" / f"{site}.json").read_text(encoding="utf-8"))
        for hexcode, code in codes.items():
            for name in [code] if isinstance(code, str) else code:
                names.setdefault(_squash(name), without_style(hexcode))
    return names


def _match(name: str, names: dict[str, str]) -> str | None:
    """Example: flag-for-chad, then flag-chad; hamburger-2 (a second drawing), then hamburger."""
    for form in (
        name,
        name.replace("flag-for-flag-", "flag-").replace("flag-for-", "flag-"),
        re.sub(r"-?\d$", "", name),
    ):
        if hexcode := names.get(_squash(form)):
            return hexcode
    return None


def _raster(path: Path) -> np.ndarray:
    return _square(Image.open(path).convert("RGBA"))


def _vector(svg: str) -> np.ndarray | None:
    try:
        return _square(
            Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE)))).convert("RGBA")
        )
    except (ValueError, OSError):
        return None


def _square(image: Image.Image) -> np.ndarray:
    """Scaled to fit 64 x 64, centred, transparent around."""
    if image.size != (SIZE, SIZE):
        scale = SIZE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        # Premultiplied, so that the colour under full transparency does not bleed in.
        image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
        square = Image.new("RGBA", (SIZE, SIZE))
        square.paste(image, ((SIZE - width) // 2, (SIZE - height) // 2))
        image = square
    return np.asarray(image)


STYLES = {
    "noto": _datasource(PACKAGE_OF["noto"], "google"),
    "openmoji": _folder(PACKAGE_OF["openmoji"], "color/svg", "*.svg"),
    "fluent_flat": _iconify(PACKAGE_OF["fluent_flat"]),
    "fluent_3d": _folder(PACKAGE_OF["fluent_3d"], "assets", "*.webp"),
    "noto_v1": _iconify(PACKAGE_OF["noto_v1"]),
    "emojione": _iconify(PACKAGE_OF["emojione"]),
    "emojione_v1": _iconify(PACKAGE_OF["emojione_v1"]),
    "fxemoji": _iconify(PACKAGE_OF["fxemoji"]),
    "streamline": _iconify(PACKAGE_OF["streamline"]),
    "twemoji": _datasource(PACKAGE_OF["twemoji"], "twitter"),
    "line_art": _folder(PACKAGE_OF["line_art"], "black/svg", "*.svg"),
    "high_contrast": _iconify(PACKAGE_OF["high_contrast"]),
}
