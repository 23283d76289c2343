"""Render the embedded few-shot task: Twemoji on white, sorted by Unicode subgroup.

    python export/demo_model/render_task.py --packages node_modules \\
        --held-out held_out_hexcodes.json --output runtime/sharpzo_edge/demo/tasks/subgroups

writes OUTPUT/train/<class>/<hexcode>.png (16 shots and up to 4 more to validate on, of emoji the
model knows in other styles), OUTPUT/test/<class>/<hexcode>.png (of emoji it never saw) and
OUTPUT/ATTRIBUTION.md. Needs pillow and numpy. Nothing is drawn at random: the same package and the
same pillow write the same bytes.

A *design* is what one emoji and its gender variants share; skin tones and mirror images are left
out. A design lies in train or in test, never in both, and gives one picture (up to three in one
class, see SUBGROUPS).
"""

import argparse
import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "emoji-datasource-twitter"
# Subgroups as emoji.json spells them, and the most pictures that one design may give. The other
# subgroups have too few designs, or (clock faces, hearts, yellow faces) differ by so few pixels
# that shots and test pictures would be the same. person-activity is short of designs, hence 3.
SUBGROUPS = {
    "alphanum": 1,
    "animal-mammal": 1,
    "clothing": 1,
    "country-flag": 1,
    "food-prepared": 1,
    "geometric": 1,
    "person-activity": 3,
    "person-role": 1,
    "sky & weather": 1,
    "transport-ground": 1,
}
SHOTS = 16
TRAIN_PER_CLASS = 20
TEST_PER_CLASS = 14
LEAST_TEST_PER_CLASS = 12
# Mean absolute difference of two pictures, as a fraction of black against white.
NEAR_IDENTICAL = 0.05
VARIANT_MARKS = {"FE0F", "200D", "2640", "2642"}  # emoji style, joiner, woman, man
FACING_RIGHT = "27A1"  # the mirror image of another emoji: left out
PERSON = "1F9D1"
MAN_OR_WOMAN = {"1F468", "1F469"}
# Gender variants with code points of their own.
SAME_DESIGN = {
    "1F478": "1FAC5",  # princess, prince: person with crown
    "1F934": "1FAC5",
    "1F930": "1FAC4",  # pregnant woman, pregnant man: pregnant person
    "1FAC3": "1FAC4",
    "1F931": f"{PERSON}-1F37C",  # breast-feeding: person feeding baby
}


class TaskError(Exception):
    """The task cannot be rendered from what was given."""


def design_of(hexcode: str) -> str:
    """The code that an emoji shares with its variants: 1F469-200D-1F373 -> 1F9D1-1F373."""
    points = [point for point in hexcode.split("-") if point not in VARIANT_MARKS]
    if len(points) > 1 and points[0] in MAN_OR_WOMAN:
        points[0] = PERSON
    code = "-".join(points)
    return SAME_DESIGN.get(code, code)


def without_style(hexcode: str) -> str:
    """Lists differ in whether they write the style selector: 00A9-FE0F -> 00A9."""
    return hexcode.upper().replace("-FE0F", "")


def class_folder(subgroup: str) -> str:
    """Example: "sky & weather" -> "sky_weather"."""
    return subgroup.replace(" & ", "-").replace("-", "_")


def read_json(path: Path, option: str):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(
            f"Cannot read {path}: {error}. It must be a JSON file; point {option} at its place."
        ) from error


def shuffled(designs) -> list[str]:
    """The designs in a fixed order that has nothing to do with Unicode's."""
    return sorted(designs, key=lambda design: sha256(design.encode()).hexdigest())


def on_white(path: Path) -> Image.Image:
    """The RGBA picture over a white background, RGB, 64 x 64 px."""
    picture = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def choose(emoji: list[dict], held_out: set[str]) -> tuple[dict[str, list], dict[str, list]]:
    """Every class's candidates for train, and its test emoji, by class folder.

    Test takes the designs with most held-out emoji (those without a known one first) until it
    has enough; the known emoji of the designs that are left may be trained on. A design gives its
    first emoji in the order of the list, which has the plain form before its variants.
    """
    train, test = {}, {}
    for subgroup, pictures in SUBGROUPS.items():
        unseen: dict[str, list[dict]] = {}
        known: dict[str, list[dict]] = {}
        for entry in emoji:
            mirrored = FACING_RIGHT in entry["unified"].split("-")
            if entry["subcategory"] == subgroup and entry["has_img_twitter"] and not mirrored:
                side = unseen if without_style(entry["unified"]) in held_out else known
                side.setdefault(design_of(entry["unified"]), []).append(entry)
        # What test does not need is left to train: both sides draw on the same few designs.
        spare = len(unseen.keys() | known.keys()) - TRAIN_PER_CLASS
        enough = min(TEST_PER_CLASS, max(LEAST_TEST_PER_CLASS, spare))
        folder = class_folder(subgroup)
        tested, test[folder] = set(), []
        for design in sorted(
            shuffled(unseen), key=lambda each: (-len(unseen[each][:pictures]), each in known)
        ):
            if len(test[folder]) < enough:
                tested.add(design)
                test[folder] += unseen[design][:pictures]
        # First emoji of every design, then second ones.
        ranked = [
            (rank, entry)
            for design in shuffled(known.keys() - tested)
            for rank, entry in enumerate(known[design][:pictures])
        ]
        train[folder] = [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]
    return train, test


def render(packages: Path, held_out_file: Path, output: Path) -> None:
    """Choose, compare and write the pictures, then the attribution."""
    if output.exists() and any(output.iterdir()):
        raise TaskError(
            f"The output folder is not empty: {output}. Pictures of another task must not stay "
            f"between these; it must be empty or absent. Type: rm -r {output}"
        )
    package = packages / PACKAGE
    emoji = read_json(package / "emoji.json", "--packages")
    version = read_json(package / "package.json", "--packages")["version"]
    emoji.sort(key=lambda entry: entry["sort_order"])
    held_out = {without_style(code) for code in read_json(held_out_file, "--held-out")}
    train, test = choose(emoji, held_out)

    def picture(entry: dict) -> Image.Image:
        return on_white(package / "img" / "twitter" / "64" / entry["image"])

    def pixels(entry: dict) -> np.ndarray:
        return np.asarray(picture(entry), np.float32) / 255

    tested = np.stack([pixels(entry) for entries in test.values() for entry in entries])
    for folder, entries in train.items():
        distinct = [
            entry
            for entry in entries
            if np.abs(tested - pixels(entry)).mean(axis=(1, 2, 3)).min() >= NEAR_IDENTICAL
        ]
        if len(distinct) < SHOTS or len(test[folder]) < LEAST_TEST_PER_CLASS:
            raise TaskError(
                f"Too few emoji for the class {folder}: {len(distinct)} to train on and "
                f"{len(test[folder])} to test on. It takes {SHOTS} known and "
                f"{LEAST_TEST_PER_CLASS} held-out designs. Give another --held-out list, or take "
                f"the class out of SUBGROUPS in {Path(__file__).name}."
            )
        train[folder] = distinct[:TRAIN_PER_CLASS]

    for split, classes in (("train", train), ("test", test)):
        for folder, entries in classes.items():
            target = output / split / folder
            target.mkdir(parents=True)
            for entry in entries:
                picture(entry).save(target / f"{entry['unified']}.png", optimize=True)
    (output / "ATTRIBUTION.md").write_text(attribution(version), encoding="utf-8")


def attribution(version: str) -> str:
    return f"""# Whose pictures these are

The pictures in train/ and test/ are Twemoji, copyright Twitter, Inc and other contributors,
licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Source:
https://github.com/jdecked/twemoji, by way of the npm package {PACKAGE} {version}
(https://github.com/iamcal/emoji-data; img/twitter/64).

Changes: each picture was composited on a white background and written anew as an RGB PNG of
64 x 64 pixels; a selection was made, and sorted into folders.

The class folders are named by the emoji subgroups of Unicode's emoji-test.txt
(https://unicode.org/emoji/charts/, Unicode License v3), read from the same package's emoji.json
(MIT, copyright 2013 Cal Henderson); a file's name is its emoji's hexcode.

Rendered by export/demo_model/render_task.py.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--packages",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"the node_modules folder that holds {PACKAGE}",
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON list of the hexcodes the model was never trained on",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; must be empty or absent",
    )
    options = parser.parse_args()
    try:
        render(options.packages, options.held_out, options.output)
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
