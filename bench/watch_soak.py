"""Ten minutes of `sharpzo-edge watch`: is its memory flat, and within the budget?

    python bench/watch_soak.py [--minutes 10]

A camera is played: JPEGs of 640 x 480 on standard input, ten a second, every 50th broken. All outputs are
used: lines, the pictures to label, and a broker on this machine, which is killed and started again every
half minute. Writes bench/results/soak/watch.json, and a part of docs/at-work.md. Needs mosquitto.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from itertools import count, cycle
from pathlib import Path
from typing import IO, Any

from PIL import Image

from shared.broker import HAS_MOSQUITTO, Mosquitto
from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge import tune
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.process_memory import DEFAULT_BUDGET, MIB, sizes_of

RESULTS, PAGE = ROOT / "bench" / "results" / "soak" / "watch.json", ROOT / "docs" / "at-work.md"
SIZE = 640, 480
FRAME_SECONDS = 0.1
BROKEN = 50  # every so many
BROKER_SECONDS = 30.0
FLAT_MIB = 2.0  # more than this between the second fifth of the time and the last would be growth


def soak(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sharpzo-edge-soak-") as name:
        folder = Path(name)
        tune(BUNDLE, TASKS / DEFAULT_TASK / "train", folder / "prompt", preset="head", threads=1)
        with Mosquitto(folder) as broker, (folder / "lines").open("wb") as lines:
            words = ["watch", "--bundle", BUNDLE, "--prompt", folder / "prompt", "--threads", 1]
            words += ["--memory-budget", DEFAULT_BUDGET, "--answers", "--save-unsure", folder / "unsure"]
            words += ["--mqtt", f"mqtt://127.0.0.1:{broker.port}/soak", "--mqtt-binary-sensors", "-"]
            watch = subprocess.Popen(
                [sys.executable, "-m", "sharpzo_edge", *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=lines,
                stderr=subprocess.PIPE,
            )
            assert watch.stdin and watch.stderr
            camera = threading.Thread(target=play, args=(watch.stdin, time.monotonic() + 60 * minutes))
            camera.start()
            resident, n_kills, peak = sampled(watch, camera, broker)
            camera.join()
            said = watch.stderr.read().decode()
            code = watch.wait()
        if code:
            raise SystemExit(f"error: watch ended with {code}: {said[-600:]}")
        fifth = max(1, len(resident) // 5)
        return {
            "machine": describe_machine(),
            "minutes": minutes,
            "said": said.splitlines()[-1],
            "broker_kills": n_kills,
            "unsure_kept": len(list((folder / "unsure").iterdir())),
            "budget": DEFAULT_BUDGET,
            "peak_mib": round(peak / MIB, 1),
            "second_fifth_mib": round(statistics.median(resident[fifth : 2 * fifth]) / MIB, 1),
            "last_fifth_mib": round(statistics.median(resident[-fifth:]) / MIB, 1),
        }


def play(stream: IO[bytes], until: float) -> None:
    """The camera. It is never slower because of who looks."""
    frames = cycle([frame(path) for path in sorted((TASKS / DEFAULT_TASK / "test").glob("*/*.png"))])
    started = time.monotonic()
    for number in count(1):
        time.sleep(max(0.0, started + number * FRAME_SECONDS - time.monotonic()))
        if time.monotonic() > until:
            break
        whole = next(frames)
        stream.write(whole[: len(whole) // 2] if number % BROKEN == 0 else whole)
        stream.flush()
    stream.close()


def frame(path: Path) -> bytes:
    data = BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").resize(SIZE).save(data, "JPEG", quality=90)
    return data.getvalue()


def sampled(
    watch: subprocess.Popen[bytes], camera: threading.Thread, broker: Mosquitto
) -> tuple[list[int], int, int]:
    """What it held, every second, in bytes; how often the broker was killed; the most that it ever held."""
    resident, n_kills, peak = [], 0, 0
    killed = time.monotonic()
    while camera.is_alive() and watch.poll() is None:
        time.sleep(1)
        sizes = sizes_of(watch.pid)
        if "VmRSS" in sizes:
            resident.append(sizes["VmRSS"])
            peak = sizes["VmHWM"]
        if time.monotonic() - killed > BROKER_SECONDS:
            broker.kill()
            time.sleep(1)
            broker.start()
            killed = time.monotonic()
            n_kills += 1
    return resident, n_kills, peak


def is_flat(found: dict[str, Any]) -> bool:
    return bool(found["last_fifth_mib"] <= found["second_fifth_mib"] + FLAT_MIB)


def part(found: dict[str, Any]) -> str:
    """The part of the page."""
    rows = [
        ("memory in the second fifth of the time", f"{found['second_fifth_mib']} MiB"),
        ("memory in the last fifth", f"{found['last_fifth_mib']} MiB"),
        ("the most, with the start", f"{found['peak_mib']} MiB of {found['budget']}"),
        ("times that the broker was killed", str(found["broker_kills"])),
        ("unsure pictures kept", str(found["unsure_kept"])),
    ]
    return "\n".join(
        [
            f"{found['minutes']:.0f} minutes of a played camera, ten pictures a second, the demo's model, "
            f"all outputs at once. At its end: {found['said']}.",
            "",
            *markdown_table(("", ""), rows),
            "",
            one_line(found["machine"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    if not HAS_MOSQUITTO:
        sys.exit("error: there is no mosquitto here. Type: sudo apt install mosquitto")
    found = keep_results(soak(given.minutes), RESULTS)
    replace_between(PAGE, "watch-soak", part(found))
    print(part(found))
    raise SystemExit(not is_flat(found))


if __name__ == "__main__":
    main()
