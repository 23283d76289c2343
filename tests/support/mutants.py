"""Mutants of valid files, and whether the readers of files from elsewhere survive them.

Every outcome must be a success or an error of ours, within a time and a memory: `try_mutants` watches from
another process, which a mutant may end. The number of a mutant and the seed decide its bytes, so that
python -m support.mutants READER SEED FIRST COUNT, typed in tests/, repeats any of them; it prints what
`Outcomes` holds as JSON.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10.0  # of one mutant, the machine's other work included
MEMORY_BYTES = 96 << 20  # that a reader may take beyond what the process had
REFUSED, READ, SAME = "refused", "read", "same"


@dataclass(frozen=True)
class Reader:
    """original: bytes of a valid file; mutate: other bytes, by chance; read: places and reads them.

    `read` raises an error of ours, or returns the value that it read. is_covered: a checksum covers the file,
    so that what is read must be what the original says.
    """

    original: bytes
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[bytes], Any]
    is_covered: bool = False


@dataclass
class Outcomes:
    """How often each outcome came, the most memory that one took, and the mutants that are defects."""

    counts: dict[str, int] = field(default_factory=dict)
    peak_mib: float = 0.0
    defects: list[str] = field(default_factory=list)


def try_mutants(reader: Reader, name: str, seed: int, first: int, count: int) -> Outcomes:
    """Try the mutants first .. first + count - 1. Children of this process are forked: it must be single."""
    outcomes = Outcomes()
    number = first
    while number < first + count:
        lines, ended = _in_child(lambda start=number: _try(reader, name, seed, start, first + count))  # type: ignore[misc]
        for line in lines:
            kind, mib, what = json.loads(line)
            outcomes.counts[kind] = outcomes.counts.get(kind, 0) + 1
            outcomes.peak_mib = max(outcomes.peak_mib, mib)
            if kind not in (REFUSED, READ, SAME):
                outcomes.defects.append(f"{name} {seed} {number} 1: {kind}: {what}")
            number += 1
        if number < first + count and ended:
            kind = "hang" if ended == -signal.SIGALRM else "crash"
            outcomes.counts[kind] = outcomes.counts.get(kind, 0) + 1
            outcomes.defects.append(f"{name} {seed} {number} 1: {kind}: {ended}")
            number += 1
    return outcomes


def mutant(reader: Reader, name: str, seed: int, number: int) -> bytes:
    return reader.mutate(reader.original, random.Random(f"{name} {seed} {number}"))


def _try(reader: Reader, name: str, seed: int, start: int, end: int) -> Iterator[tuple[str, float, str]]:
    """(outcome, MiB that it took at most, what of it) of every mutant; ends after one that took too much."""
    from sharpzo_edge.errors import SharpzoError

    _limit_memory(2 * MEMORY_BYTES)
    value = reader.read(reader.original)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(start, end):
        data = mutant(reader, name, seed, number)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        kind, what = READ, ""
        try:
            found = reader.read(data)
            if found == value:
                kind = SAME
            elif reader.is_covered:
                kind, what = "wrong", f"{found!r:.200}"
            del found
        except SharpzoError:
            kind = REFUSED
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            kind, what = type(error).__name__, f"{error!s:.200} ({place})"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if taken * 2**20 > MEMORY_BYTES:
            yield "memory", taken, f"{taken:.0f} MiB"
            return
        yield kind, taken, what


def _in_child(work: Callable[[], Iterator[object]]) -> tuple[list[str], int]:
    """What a forked process yields, as lines of JSON, and its exit code or the negative signal."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # also ends what Python cannot interrupt
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        code = 1
        try:
            for each in work():
                os.write(writing, json.dumps(each).encode() + b"\n")
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = [line.decode() for line in pipe if line.endswith(b"\n")]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 1:
        raise RuntimeError("the mutants' process failed")
    return lines, code


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# Mutations of bytes, of JSON, of safetensors -----------------------------------------------------

HUGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes, half of them near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not changed:
            changed += bytes(rng.randrange(1, 9))
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 128)
        at = rng.randrange(end)
        length = min(len(changed) - at, int(2 ** rng.uniform(0, 10)))
        piece = changed[at : at + length]
        match rng.randrange(9):
            case 0 | 1:
                for _ in range(rng.choice((1, 1, 2, 8))):
                    changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
            case 2:
                changed[at : at + length] = rng.randbytes(length)
            case 3:
                changed[at : at + length] = bytes([rng.choice((0, 0xFF, 0x20, 0x5B))]) * length
            case 4:
                del changed[at:]
            case 5:
                del changed[at : at + length]
            case 6:
                changed[at:at] = piece * rng.choice((1, 1, 2, 50))
            case 7:
                other = rng.randrange(len(changed))
                there = changed[other : other + length]
                changed[at : at + length] = there
                changed[other : other + length] = piece
            case 8:
                n = rng.choice((1, 2, 4, 8))
                number = rng.choice(HUGE) % 256**n
                changed[at : at + n] = number.to_bytes(n, rng.choice(("little", "big")))
    return bytes(changed)


WORDS = (
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a" * 300,
    "word " * 30_000,
    "\0",
    "\ud800",
    "é犬",
    "nan",
    "-1",
)
NUMBERS = (0, -1, 1, 2, 3, 255, 2**31, 2**62, 2**64, 10**400, -(10**30), 0.0, -0.5, 1e-300, 1e300)
ODD_NUMBERS = (float("nan"), float("inf"), -float("inf"))


def mutate_json(value: Any, rng: random.Random) -> Any:
    """One to three things in it replaced, deleted, doubled, added, renamed or swapped."""
    changed = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        parent, key = _place(changed, rng)
        match rng.randrange(8):
            case 0 | 1 | 2:
                parent[key] = _alike(parent[key], rng)
            case 3 | 4:
                parent[key] = _any_value(rng)
            case 5 if parent is not changed:
                del parent[key]
            case 6 if isinstance(parent, dict):
                parent[rng.choice((*WORDS, f"{key}s"))] = (
                    parent.pop(key) if rng.random() < 0.5 else parent[key]
                )
            case 7 if isinstance(parent, list) and parent is not changed:
                parent[key:key] = [parent[key]] * rng.choice((1, 2, 300))
    return changed[0]


def _place(holder: list[Any], rng: random.Random) -> tuple[Any, Any]:
    """A way down from [value], as deep as chance has it: (container, key)."""
    parent: Any = holder
    key: Any = 0
    while isinstance(parent[key], (dict, list)) and parent[key] and rng.random() < 0.9:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def _alike(value: Any, rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, value - 1, -value, value * 2, value % 7, *NUMBERS, *ODD_NUMBERS))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + value, value.upper(), value[::-1], *WORDS))
    if isinstance(value, list):
        return rng.choice((value[:-1], value + value, value[::-1], value * 50, []))
    return _any_value(rng)


def _any_value(rng: random.Random) -> Any:
    nested: Any = rng.choice((0, {}, []))
    for _ in range(rng.choice((1, 30, 600))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return rng.choice((None, True, [], {}, [[]], nested, *NUMBERS, *ODD_NUMBERS, *WORDS))


def spelt(value: Any, rng: random.Random) -> bytes:
    """As JSON, in one spelling or another; sometimes no JSON any more."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:
        text = text.replace("1", rng.choice(("1e999", "-", "1" * 5000, "[" * 9999, '{"a":', "\\u0000")), 1)
    return text.encode(errors="surrogatepass")


def mutate_json_file(data: bytes, rng: random.Random) -> bytes:
    """Of a JSON file: of its value, four times of five, or of its bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    return spelt(mutate_json(json.loads(data), rng), rng)


def mutate_safetensors(
    data: bytes, rng: random.Random, metadata_key: str, reseal: Callable[[bytes], bytes] = lambda data: data
) -> bytes:
    """Of the bytes, of the header (shapes, types, places), or of the JSON in its metadata."""
    how = rng.random()
    if how < 0.2:
        return mutate_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if how < 0.5:
        name = rng.choice([key for key in header if key != "__metadata__"])
        match rng.randrange(5):
            case 0:
                header[name]["shape"] = [
                    rng.choice((0, 1, 3, 2**20, 2**40, 2**62)) for _ in range(rng.randrange(4))
                ]
            case 1:
                header[name]["dtype"] = rng.choice(
                    ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X")
                )
            case 2:
                header[name]["data_offsets"] = [0, rng.choice((0, 4, len(body), 2**40, 2**63))]
            case 3:
                header[rng.choice((name + "s", "", "\0"))] = header.pop(name)
            case 4:
                header = mutate_json(header, rng)
    else:
        inner = json.loads(header["__metadata__"][metadata_key])
        header["__metadata__"][metadata_key] = spelt(mutate_json(inner, rng), rng).decode(errors="replace")
    text = json.dumps(header).encode()
    stated = len(text) if rng.random() < 0.97 else rng.choice(HUGE)
    changed = stated.to_bytes(8, "little") + text + body
    return reseal(changed) if rng.random() < 0.7 else changed


def main() -> None:
    from support.readers import READERS

    name, seed, first, count = sys.argv[1], *map(int, sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        reader = READERS[name](Path(folder))
        print(json.dumps(asdict(try_mutants(reader, name, seed, first, count))))


if __name__ == "__main__":
    main()
