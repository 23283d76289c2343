"""Which MQTT broker is meant, and what is said there: the address after --mqtt, the password, the topics."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import UsageError, cannot_read, is_absent
from ..run.files import read_limited

PORTS = {"mqtt": 1883, "mqtts": 8883}
PASSWORD = "SHARPZO_MQTT_PASSWORD"
PASSWORD_LIMIT_BYTES = 4096
EXAMPLE = "mqtt://user@192.0.2.7/home/camera"


@dataclass(frozen=True)
class Broker:
    """An address, and who logs in. prefix: how our topics begin, without a slash at its end"""

    host: str
    port: int
    prefix: str
    is_encrypted: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def broker_of(address: str, password_file: str | os.PathLike[str] | None) -> Broker:
    """The broker of an address such as mqtt://user@host:1883/prefix. Raises UsageError."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise _refused(address, str(error)) from error
    prefix = unquote(parts.path).strip("/")
    if parts.password is not None:
        raise UsageError(
            f"--mqtt holds a password, and whoever lists this machine's processes could read it. It takes "
            f"an address such as {EXAMPLE}. Put the password into the variable {PASSWORD}, or into a file, "
            f"and add --mqtt-password-file FILE"
        )
    if parts.scheme not in PORTS:
        raise _refused(address, f"it begins with {parts.scheme or 'no kind'}://")
    if not parts.hostname:
        raise _refused(address, "it names no host")
    if not prefix or set(prefix) & {"#", "+", "\0"} or parts.query or parts.fragment:
        raise _refused(address, "its end is no beginning of a topic")
    user = unquote(parts.username) if parts.username else None
    return Broker(
        parts.hostname,
        port or PORTS[parts.scheme],
        prefix,
        parts.scheme == "mqtts",
        user,
        _password(password_file) if user else None,
    )


def _password(file: str | os.PathLike[str] | None) -> str | None:
    if file is None:
        return os.environ.get(PASSWORD)
    path = Path(file)
    try:
        return read_limited(path, PASSWORD_LIMIT_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        if not is_absent(error):
            raise cannot_read(path, error) from error
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise UsageError(
        f"The password file {path} cannot be used ({reason}). It holds the password as UTF-8 text, and "
        f"nothing else. Check the path after --mqtt-password-file"
    )


def _refused(address: str, why: str) -> UsageError:
    return UsageError(
        f"--mqtt {address} cannot be used: {why}. It takes mqtt:// or, with TLS, mqtts://, the host, and how "
        f"the topics begin, without + and #. Try --mqtt {EXAMPLE}"
    )
