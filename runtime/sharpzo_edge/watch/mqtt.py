"""Tells an MQTT broker (paho-mqtt: the extra [mqtt]). Whoever tells it something never waits for the network.

Everything is retained and said again after each connection, so that the broker has what is true now, however
long it was away. Messages are sent with QoS 0: with QoS 1, old states would be sent again after newer ones.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from .broker import Broker
from .home_assistant import announcements, state_of, words_of

HELD_BYTES = 6 << 20  # what paho-mqtt, TLS and its thread take; some 5 MiB were seen
KEEP_ALIVE_SECONDS = 30
RECONNECT_SECONDS = (1, 60)  # the first wait, doubled up to the last
END_SECONDS = 1.0
ONLINE, OFFLINE = "online", "offline"


class Mqtt:
    """A connection that is kept up, in a thread of paho's. A context manager.

    Under the broker's prefix: `state`, the label; `attributes`, JSON; `availability`; and for each class
    `is/WORD`, ON or OFF, where binary sensors are asked for.
    """

    def __init__(
        self, broker: Broker, labels: Sequence[str], has_binary_sensors: bool, note: Callable[[str], None]
    ):
        """note: is told when the connection comes and goes"""
        self._broker, self._note = broker, note
        self._words = words_of(labels) if has_binary_sensors else {}
        self._topic = f"{broker.prefix}/{{}}".format
        said = announcements(broker.prefix, labels, has_binary_sensors)
        self._said = {topic: json.dumps(value) for topic, value in said.items()}
        self._told = ""
        self._lock = threading.Lock()  # what is said, and the order in which it is sent
        self._has_left = threading.Event()
        self._client = self._made()

    def _made(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2)
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.is_encrypted:
            client.tls_set_context(ssl.create_default_context())
        client.will_set(self._topic("availability"), OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(*RECONNECT_SECONDS)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        return client

    def tell(self, label: str, attributes: Mapping[str, Any]) -> None:
        """The state has changed. label: of a class, or home_assistant.NONE"""
        self._say(
            {
                self._topic("attributes"): json.dumps(attributes),
                self._topic("state"): state_of(label),
                **{
                    self._topic(f"is/{word}"): "ON" if label == each else "OFF"
                    for each, word in self._words.items()
                },
            }
        )

    def tell_there(self, is_there: bool) -> None:
        """Whether the source is there: without it, the state says nothing."""
        self._say({self._topic("availability"): ONLINE if is_there else OFFLINE})

    def _say(self, messages: Mapping[str, str]) -> None:
        with self._lock:
            self._said |= messages
            if self._client.is_connected():
                self._send(messages)

    def _send(self, messages: Mapping[str, str]) -> None:
        for topic, message in messages.items():
            self._client.publish(topic, message, qos=0, retain=True)

    def __enter__(self) -> Self:
        self._client.connect_async(self._broker.host, self._broker.port, KEEP_ALIVE_SECONDS)
        self._client.loop_start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Say that it has gone. A broker that does not listen is not waited for."""
        is_connected = self._client.is_connected()
        self.tell_there(False)
        self._client.disconnect()
        if is_connected:
            self._has_left.wait(END_SECONDS)

    def _on_connect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell_once(f"refuses: {reason}. Check the user and the password; it is tried again")
            return
        with self._lock:
            self._send(self._said)
        self._tell_once("is connected")

    def _on_connect_fail(self, client: Client, userdata: Any) -> None:
        self._tell_once("cannot be reached; it is tried again")

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            self._has_left.set()
        elif self._told == "is connected":
            self._tell_once(f"was lost: {reason}; it is tried again")

    def _tell_once(self, what: str) -> None:
        if what != self._told:
            self._told = what
            self._note(f"MQTT broker {self._broker.name} {what}")
