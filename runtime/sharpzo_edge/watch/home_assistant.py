"""What Home Assistant is told, so that it shows the watcher by itself (its MQTT discovery).

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, sensor.mqtt and binary_sensor.mqtt. All of it
is retained: Home Assistant finds it whenever it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..version import __version__
from ..wording import shortened

DISCOVERY = "homeassistant"  # Home Assistant's own default
LONGEST_WORD = 40
LONGEST_STATE = 255  # characters that Home Assistant takes
NONE = "none"  # the state where a picture shows none of the classes
UNKNOWN = "None"  # Home Assistant's own: that there is no state
OTHER_SIGNS = re.compile(r"[^a-zA-Z0-9_-]+")


def state_of(label: str) -> str:
    """A label as a state. A class that is named like Home Assistant's UNKNOWN is NONE."""
    return NONE if label == UNKNOWN else shortened(label, LONGEST_STATE)


def words_of(labels: Sequence[str]) -> dict[str, str]:
    """For each label a word of a topic, another one for each."""
    words: dict[str, str] = {}
    for k, label in enumerate(labels):
        word = OTHER_SIGNS.sub("_", label)[:LONGEST_WORD].strip("_")
        while not word or word in words.values():
            word = f"{word}_{k}"
        words[label] = word
    return words


def announcements(
    prefix: str, labels: Sequence[str], has_binary_sensors: bool
) -> Mapping[str, dict[str, Any]]:
    """Topics of discovery, and what is said there.

    One sensor whose options are the labels and NONE; and on request a binary sensor for each label.
    """
    us = f"sharpzo_edge_{OTHER_SIGNS.sub('_', prefix)}"
    shared = {
        "availability_topic": f"{prefix}/availability",
        "device": {
            "identifiers": [us],
            "name": prefix.rpartition("/")[2],
            "manufacturer": "sharpzo-edge",
            "sw_version": __version__,
        },
        "origin": {"name": "sharpzo-edge", "sw_version": __version__},
    }
    states = list(dict.fromkeys([*map(state_of, labels), NONE]))
    sensor = {
        "name": None,  # the device's name alone
        "unique_id": us,
        "device_class": "enum",
        "options": states,
        "state_topic": f"{prefix}/state",
        "json_attributes_topic": f"{prefix}/attributes",
        "icon": "mdi:eye",
        **shared,
    }
    found = {f"{DISCOVERY}/sensor/{us}/config": sensor}
    if has_binary_sensors:
        for label, word in words_of(labels).items():
            found[f"{DISCOVERY}/binary_sensor/{us}_{word}/config"] = {
                "name": label,
                "unique_id": f"{us}_{word}",
                "state_topic": f"{prefix}/is/{word}",
                **shared,
            }
    return found
