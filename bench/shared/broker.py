"""Debian's mosquitto on a free port of this machine, and a listener that remembers what was said there."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from .waiting import until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
HAS_MOSQUITTO = MOSQUITTO is not None


class Mosquitto:
    """A broker that can be killed and started again; it forgets everything then."""

    def __init__(self, folder: Path, settings: Sequence[str] = ("allow_anonymous true",)):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        self._file.write_text("\n".join([f"listener {self.port} 127.0.0.1", *settings, ""]), encoding="utf-8")

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Listener:
    """Subscribes to everything. messages: all that came;  now: the last one by topic"""

    def __init__(self, port: int, prepare: Callable[[Client], Any] = lambda client: None):
        self.messages: list[tuple[str, str]] = []
        self.now: dict[str, str] = {}
        self._client = Client(CallbackAPIVersion.VERSION2)
        prepare(self._client)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)

    def json(self, topic: str) -> Any:
        return json.loads(self.now[topic])

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self.messages.append((message.topic, message.payload.decode()))
        self.now[message.topic] = message.payload.decode()

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
