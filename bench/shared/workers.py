"""Calls at once, by Dask: in processes of this machine, or in the workers of a scheduler elsewhere."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed

from .machine import describe_machine, with_versions_of

LOOPBACK = "127.0.0.1"
LOCAL = {
    "distributed.scheduler.worker-saturation": 1.0,  # one call in a worker: what ends it takes no other along
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,  # it would take time from the calls
}


@contextmanager
def workers(n: int, scheduler: str | None = None) -> Iterator[Client]:
    """A client of n processes on this machine, each with one thread; or of the scheduler at an address.

    The processes listen to this machine alone, let only this client in, and end with this process, whatever
    ends it. For a scheduler elsewhere Dask's own configuration holds, with certificates and all.

    Raises SystemExit when no scheduler answers there, or its workers cannot serve.
    """
    if scheduler:
        try:
            client = Client(scheduler)
        except (OSError, TypeError, ValueError) as error:  # a TypeError: no certificates
            raise SystemExit(
                f"No scheduler answers at {scheduler}: {error}. It must be a scheduler of Dask. Start one: "
                f"dask scheduler, and on every machine: dask worker --nthreads 1 ADDRESS"
            ) from error
        with client:
            check_tree(client)
            yield client
        return
    with (
        dask.config.set(LOCAL),
        LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            memory_limit=None,
            host=LOOPBACK,
            security=True,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": f"{LOOPBACK}:0"},  # else it takes port 8787
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def check_tree(client: Client) -> None:
    """Raises SystemExit when there is no worker, or one has another commit than this process."""
    commit = describe_machine()["commit"]
    found = client.run(describe_machine)
    if not found:
        raise SystemExit("The scheduler has no worker. It must have one. Start one: dask worker ADDRESS")
    for address, machine in found.items():
        if machine["commit"] != commit:
            raise SystemExit(
                f"The worker at {address} runs commit {machine['commit']}. It must run this one's, {commit}. "
                f"Check that out there, and start the worker again"
            )


def machine_of(client: Client) -> dict[str, Any]:
    """What `describe_machine` finds where the workers are; of several every processor and version."""
    return functools.reduce(with_versions_of, client.run(describe_machine).values())


def as_done(
    client: Client, do: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """(number of the call, what `do` returned) in the order in which they end; the first calls begin first.

    A call whose worker dies is made again in another. For one that fails, or that four workers died of, the
    traceback is shown and None is returned.
    """
    numbers = {client.submit(_call, do, *call, pure=False): number for number, call in enumerate(calls)}
    for future in as_completed(list(numbers)):
        number = numbers.pop(future)
        try:
            result = future.result()
        except Exception:
            traceback.print_exc()
            result = None
        yield number, result


def _call(do: Callable[..., Any], *arguments: Any) -> Any:
    """An exit becomes an error of this call: it would end the worker."""
    try:
        return do(*arguments)
    except SystemExit as reason:
        raise RuntimeError(str(reason)) from reason
