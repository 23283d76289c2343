"""What a real broker is told, also when it is killed, comes late, or wants a password or TLS."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.broker import HAS_MOSQUITTO, Listener, Mosquitto
from shared.waiting import until
from sharpzo_edge.watch import mqtt as mqtt_file
from sharpzo_edge.watch.broker import Broker, broker_of
from sharpzo_edge.watch.mqtt import Mqtt

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="there is no mosquitto here: apt install mosquitto")
LABELS = ("cat", "hot dog", "a/b #+", "犬", "狗")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries to reconnect at once, and not after seconds."""
    monkeypatch.setattr(mqtt_file, "RECONNECT_SECONDS", (1, 1))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def told(port: int, notes: list[str], **more: object) -> Mqtt:
    return Mqtt(Broker("127.0.0.1", port, "home/camera", **more), LABELS, True, notes.append)  # type: ignore[arg-type]


def test_home_assistant_finds_a_sensor_and_its_states(broker: Mosquitto) -> None:
    with Listener(broker.port) as heard:
        with told(broker.port, []) as mqtt:
            mqtt.tell_there(True)
            mqtt.tell("hot dog", {"score": 0.9})
            until(lambda: "home/camera/state" in heard.now and "home/camera/is/cat" in heard.now)
            sensor = heard.json("homeassistant/sensor/sharpzo_edge_home_camera/config")
            assert sensor["device_class"] == "enum"
            assert sensor["options"] == [*LABELS, "none"]
            assert heard.now[sensor["state_topic"]] in sensor["options"]
            assert heard.json(sensor["json_attributes_topic"]) == {"score": 0.9}
            assert until(lambda: heard.now.get(sensor["availability_topic"])) == "online"
            binary = {
                heard.json(topic)["name"]: heard.now[heard.json(topic)["state_topic"]]
                for topic in list(heard.now)
                if topic.startswith("homeassistant/binary_sensor/")
            }
            assert binary == {label: "ON" if label == "hot dog" else "OFF" for label in LABELS}
        until(lambda: heard.now[sensor["availability_topic"]] == "offline")


def test_everything_is_retained_for_who_comes_later(broker: Mosquitto) -> None:
    with told(broker.port, []) as mqtt:
        mqtt.tell_there(True)
        mqtt.tell("cat", {})
        time.sleep(0.1)
        with Listener(broker.port) as heard:
            until(lambda: heard.now.get("home/camera/state") == "cat")
            until(lambda: heard.now.get("home/camera/availability") == "online")
            until(lambda: "homeassistant/sensor/sharpzo_edge_home_camera/config" in heard.now)


def test_a_killed_broker_hears_the_last_state_when_it_is_back(broker: Mosquitto) -> None:
    notes: list[str] = []
    with told(broker.port, notes) as mqtt:
        mqtt.tell("cat", {})
        until(lambda: notes)
        broker.kill()
        started = time.monotonic()
        for label in ("cat", "hot dog") * 500:
            mqtt.tell(label, {})
        assert time.monotonic() - started < 5  # nothing waits for the network
        broker.start()
        with Listener(broker.port) as heard:
            until(lambda: heard.now.get("home/camera/state") == "hot dog")
            until(lambda: heard.now.get("homeassistant/sensor/sharpzo_edge_home_camera/config"))
        assert [note.split(" ", 3)[3].split(":")[0] for note in notes][::2] == ["is connected"] * 2


def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    late, notes = Mosquitto(tmp_path), []  # type: tuple[Mosquitto, list[str]]
    with told(late.port, notes) as mqtt:
        mqtt.tell("cat", {})
        until(lambda: notes == [f"MQTT broker 127.0.0.1:{late.port} cannot be reached; it is tried again"])
        with late, Listener(late.port) as heard:
            until(lambda: heard.now.get("home/camera/state") == "cat")


def test_a_process_that_dies_is_offline_by_its_last_will(broker: Mosquitto) -> None:
    with Listener(broker.port) as heard:
        mqtt = told(broker.port, []).__enter__()
        mqtt.tell_there(True)
        until(lambda: heard.now.get("home/camera/availability") == "online")
        mqtt._client.socket().shutdown(2)  # type: ignore[union-attr]  # as a cable that is pulled
        until(lambda: ("home/camera/availability", "offline") in heard.messages)
        mqtt.__exit__()


def test_a_wrong_password_is_said_and_a_right_one_is_let_in(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", users, "pi", "right"], check=True)
    with Mosquitto(tmp_path, ["user root", f"password_file {users}", "allow_anonymous false"]) as broker:
        notes: list[str] = []
        with told(broker.port, notes, user="pi", password="wrong"):
            assert "refuses: Not authorized" in until(lambda: notes)[0]
        heard = Listener(broker.port, lambda client: client.username_pw_set("pi", "right"))
        with told(broker.port, [], user="pi", password="right") as mqtt, heard:
            mqtt.tell("cat", {})
            until(lambda: heard.now.get("home/camera/state") == "cat")


def test_tls_asks_for_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*made, *more], check=True, capture_output=True)
    settings = ["user root", "allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"]
    with Mosquitto(tmp_path, settings) as broker:
        notes: list[str] = []
        with told(broker.port, notes, is_encrypted=True):
            assert "cannot be reached" in until(lambda: notes)[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        heard = Listener(broker.port, lambda client: client.tls_set_context(ssl.create_default_context()))
        with told(broker.port, [], is_encrypted=True) as mqtt, heard:
            mqtt.tell("cat", {})
            until(lambda: heard.now.get("home/camera/state") == "cat")


def test_an_address_holds_all_but_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARPZO_MQTT_PASSWORD", "from the environment")
    found = broker_of("mqtts://pi%40home@broker.local/a/b/", None)
    assert found == Broker("broker.local", 8883, "a/b", True, "pi@home", "from the environment")
    assert "environment" not in repr(found)
    (tmp_path / "password").write_text("from the file\n")
    found = broker_of("mqtt://pi@[::1]:9/a", tmp_path / "password")
    assert (found.host, found.port, found.password) == ("::1", 9, "from the file")
    assert broker_of("mqtt://192.0.2.7/a", None).password is None
