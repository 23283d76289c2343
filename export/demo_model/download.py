"""Step 1: the npm packages with pictures, names and keywords, at pinned versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One npm package; `licence` is its package.json's and is checked, `pictures_by` is for attributions."""

    name: str
    version: str
    licence: str
    pictures_by: str = ""  # empty: words only


CC_BY = "https://creativecommons.org/licenses/by/4.0/"
CC_BY_SA = "https://creativecommons.org/licenses/by-sa/4.0/"
APACHE = "https://www.apache.org/licenses/LICENSE-2.0"

PACKAGES = (
    # The pictures in emoji-datasource-* keep their makers' licences; package.json's is for its tables.
    Package(
        "emoji-datasource-google",
        "16.0.0",
        "MIT",
        f"Noto Emoji, copyright Google LLC, Apache License 2.0 ({APACHE}), https://github.com/googlefonts/noto-emoji",
    ),
    Package(
        "emoji-datasource-twitter",
        "16.0.0",
        "MIT",
        f"Twemoji, copyright Twitter, Inc and other contributors, CC BY 4.0 ({CC_BY}), "
        "https://github.com/jdecked/twemoji",
    ),
    Package(
        "openmoji",
        "17.0.0",
        "CC-BY-SA-4.0",
        f"OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0 ({CC_BY_SA}), https://openmoji.org",
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Fluent Emoji (flat), copyright Microsoft Corporation, MIT, https://github.com/microsoft/fluentui-emoji",
    ),
    Package(
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "MIT",
        "Fluent Emoji (high contrast), copyright Microsoft Corporation, MIT, "
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "MIT",
        "Fluent Emoji (3D), copyright Microsoft Corporation, MIT, https://github.com/microsoft/fluentui-emoji",
    ),
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "Apache-2.0",
        f"Noto Emoji (v1), copyright Google LLC, Apache License 2.0 ({APACHE}), "
        "https://github.com/googlefonts/noto-emoji",
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "CC-BY-4.0",
        f"Emoji One (coloured), CC BY 4.0 ({CC_BY}), https://github.com/EmojiTwo/emojitwo",
    ),
    Package(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "CC-BY-SA-4.0",
        f"Emoji One (v1), CC BY-SA 4.0 ({CC_BY_SA}), https://github.com/joypixels/emojione-legacy",
    ),
    Package(
        "@iconify-json/fxemoji",
        "1.2.2",
        "Apache-2.0",
        f"Firefox OS Emoji, copyright Mozilla, Apache License 2.0 ({APACHE}), "
        "https://github.com/mozilla/fxemoji",
    ),
    Package(
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "CC-BY-4.0",
        f"Streamline Emojis, copyright Streamline, CC BY 4.0 ({CC_BY}), "
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    Package("emojibase-data", "17.0.0", "MIT"),
    Package("emojilib", "4.0.3", "MIT"),
)


class DownloadError(Exception):
    """A package is missing, or is not what the recipe was written for."""


def download(folder: Path) -> Path:
    """Install PACKAGES into folder/node_modules, which is returned."""
    return install(folder, PACKAGES)


def install(folder: Path, packages: Sequence[Package]) -> Path:
    """Install packages into folder/node_modules, which is returned. No package's scripts run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]
    try:
        subprocess.run([*command, *(f"{p.name}@{p.version}" for p in packages)], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DownloadError(
            f"npm could not install the emoji packages: {error}. The recipe needs npm and its registry. "
            f"Install Node.js, or put the packages into {folder / 'node_modules'} by hand"
        ) from error
    check(folder / "node_modules", packages)
    return folder / "node_modules"


def check(node_modules: Path, packages: Sequence[Package] = PACKAGES) -> None:
    """Refuse a package whose version or licence is not the pinned one."""
    for package in packages:
        found = json.loads((node_modules / package.name / "package.json").read_text(encoding="utf-8"))
        if (found["version"], found["license"]) != (package.version, package.licence):
            raise DownloadError(
                f"{package.name} is {found['version']} under {found['license']}. The recipe was written for "
                f"{package.version} under {package.licence}. Read the new licence, then change download.py"
            )


def attribution(names: Collection[str], changes: str) -> str:
    """Markdown for the pictures of the packages `names`: whose, their licence, what was changed."""
    lines = [
        f"- {p.pictures_by}. From the npm package {p.name} {p.version}." for p in PACKAGES if p.name in names
    ]
    return "\n".join([*lines, "", f"Changes: {changes}", ""])
