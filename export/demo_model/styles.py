"""The styles that emoji are drawn in, by the npm package that each comes from."""

from __future__ import annotations

PACKAGE_OF = {
    "noto": "emoji-datasource-google",
    "openmoji": "openmoji",
    "fluent_flat": "@iconify-json/fluent-emoji-flat",
    "fluent_3d": "@lobehub/fluent-emoji-3d",
    "noto_v1": "@iconify-json/noto-v1",
    "emojione": "@iconify-json/emojione",
    "emojione_v1": "@iconify-json/emojione-v1",
    "fxemoji": "@iconify-json/fxemoji",
    "streamline": "@iconify-json/streamline-emojis",
    "twemoji": "emoji-datasource-twitter",
    "line_art": "openmoji",
    "high_contrast": "@iconify-json/fluent-emoji-high-contrast",
}
# The pictures to tune on and to test on; and two shifts of style, to test on alone. The model sees neither.
TASK_STYLE = "twemoji"
SHIFTED_STYLES = ("line_art", "high_contrast")
TRAINING_STYLES = tuple(style for style in PACKAGE_OF if style not in (TASK_STYLE, *SHIFTED_STYLES))
# Folders of a task's pictures to test on, and the style of each.
SPLITS = {"test": TASK_STYLE} | {f"test_{style}": style for style in SHIFTED_STYLES}
STYLE_NAMES = {"twemoji": "Twemoji", "line_art": "line art", "high_contrast": "high contrast"}
