"""Dask distributed as this program uses it: nothing listens but what carries messages.

Dask runs what its scheduler sends, whoever sent it there. So a scheduler, a member and a driver talk to this
machine alone (loopback), or encrypted and with certificates on both sides.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from pathlib import Path
from typing import Any

import dask.config
from distributed import Security

from ..errors import UsageError
from .certificates import CA, CERTIFICATE, KEY

CONNECT_SECONDS = 10
SILENT_SECONDS = 60  # a member that says nothing for so long, or twice as long, counts as lost
LOOK_SECONDS = 0.2
DEFAULT_PORT = 8786
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": f"{SILENT_SECONDS}s",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
    "distributed.comm.timeouts.tcp": f"{SILENT_SECONDS}s",
    "distributed.diagnostics.nvml": False,
    "distributed.admin.large-graph-warning-threshold": "1GiB",
}
LOUD = (
    "distributed",
    "distributed.client",
    "distributed.core",
    "distributed.worker",
    "distributed.scheduler",
    "tornado",
)


def set_up() -> None:
    """Dask's settings for this process."""
    dask.config.set(SETTINGS)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def security_of(folder: str | os.PathLike[str] | None) -> Security:
    """Encryption with the certificates of a folder, or none at all. Raises UsageError for what is missing."""
    if folder is None:
        return Security(require_encryption=False)
    certificates = Path(folder)
    files = [certificates / name for name in (CA, CERTIFICATE, KEY)]
    for file in files:
        if not file.is_file():
            raise UsageError(
                f"--certificates {certificates} has no {file.name}. The folder must hold {CA}, "
                f"{CERTIFICATE} and {KEY}. Make them with: sharpzo-edge fleet certificates --output "
                f"{certificates}"
            )
    ca, certificate, key = map(str, files)
    roles = {
        f"tls_{role}_{kind}": path
        for role in ("scheduler", "worker", "client")
        for kind, path in (("cert", certificate), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=ca, tls_min_version=ssl.TLSVersion.TLSv1_3, **roles)


def address_of(scheduler: str, security: Security) -> str:
    """HOST:PORT as Dask spells it.

    Raises UsageError where it is none, and for one on the network without certificates.
    """
    host, _, port = scheduler.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(
            f"--scheduler {scheduler} is no address. It takes HOST:PORT. Try --scheduler "
            f"127.0.0.1:{DEFAULT_PORT}"
        )
    require_safe("--scheduler", host, security)
    return f"{'tls' if security.require_encryption else 'tcp'}://{host}:{port}"


def require_safe(option: str, host: str, security: Security) -> None:
    """Raises UsageError for an address of the network without certificates."""
    if not security.require_encryption and not is_loopback(host):
        raise UsageError(
            f"{option} {host} is on the network, and nothing would be encrypted: whoever reaches it could "
            f"run programs on every machine of the fleet. Without certificates only this machine, "
            f"127.0.0.1, is allowed. Type: sharpzo-edge fleet certificates --output FOLDER, copy the folder "
            f"to each machine, and add --certificates FOLDER"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class WithoutHttp:
    """A node of Dask whose web server is not started."""

    def start_http_server(self, *_: Any, **__: Any) -> None: ...
