"""`doctor --bench`: how fast a bundle's towers are on this board, what they take, whether it stays cool.

`tune --plan --figures` reads it again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import context_from_words, name_token_ids, prompts_of
from ..clip.sessions import onnxruntime_version
from ..errors import UsageError, cannot_read, is_absent
from ..machine import this_machine
from ..memory.budget import budget_of
from ..memory.plan import make_plan
from ..process_memory import DEFAULT_BUDGET, peak_rss_mib
from ..processor import this_processor
from ..requests import AnyPath
from ..run.files import read_limited
from ..run.typed_json import read_dataclass
from ..storage import reading_speed
from ..tuning.prepare import choose_tangents, work_of
from ..tuning.presets import EDGE
from .speed import image_seconds, text_seconds

N_CLASSES = 10
FIGURES_LIMIT_BYTES = 1 << 20
SECONDS = 60.0  # of each tower, at least: a board without a fan gets warm
DEVICE_TREE = Path("/proc/device-tree/model")
TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")  # in thousandths of a degree


@dataclass(frozen=True)
class Figures:
    """What was measured of a bundle on a board.

    board:           its model as Linux has it, or its processor
    page_kib:        the size of a page of memory
    load:            programs that ran or waited before, on average of a minute: others made it slower
    query_seconds, direction_seconds: of 10 classes, by the plan within the default budget; a direction is a
        tangent with its share of the pass that a sketch's directions share, None where the bundle has none
    query_rows:      rows that a query of these 10 classes has in the text tower
    picture_seconds: of one picture, by that plan
    planned_mib, peak_rss_mib: what the plan promised, and what the process took
    read_bytes_a_second, read_is_cold: of the text tower's file; whether the disk's, and not the page cache's
    celsius_before, celsius_after: of the processor; None where it is not told
    """

    board: str
    machine: str
    system: str
    cores: int
    page_kib: int
    load: float
    free_mib: float | None
    int8_dot: tuple[str, ...] | None
    versions: dict[str, str]
    model: str
    weights: str
    bundle: str
    plan: dict[str, Any]
    query_seconds: float
    query_rows: int
    direction_seconds: float | None
    picture_seconds: float
    planned_mib: float
    peak_rss_mib: float
    read_bytes_a_second: float
    read_is_cold: bool
    celsius_before: float | None
    celsius_after: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def figures_of(bundle: Bundle, seconds: float = SECONDS) -> Figures:
    """Run both towers for some time each, within the default budget.

    The class names are the bundle's initial words, which every vocabulary has. Raises BudgetError when no
    plan fits.
    """
    manifest = bundle.manifest
    before, load = celsius(), os.getloadavg()[0]
    reading = reading_speed(bundle.path(manifest.text.data))
    machine, processor = this_machine(), this_processor()
    context = context_from_words(bundle, manifest.initial_context)
    names = (manifest.initial_context,) * N_CLASSES
    ids = name_token_ids(bundle, names, ())
    settings = EDGE.for_context(context.size).with_tangents(partial(choose_tangents, bundle))
    budget = budget_of(DEFAULT_BUDGET, onnxruntime_version(), machine)
    plan = make_plan(manifest, work_of(settings, context, ids, machine.cores), budget)
    budget.require_floor()
    prompts = prompts_of(bundle, names, ids, len(context), plan.text.chunk_rows)
    picture = image_seconds(bundle, plan.image, seconds)
    query, direction = text_seconds(bundle, plan.text, context, prompts, seconds)
    return Figures(
        board=board_name() or processor.name or processor.machine,
        machine=processor.machine,
        system=f"{platform.system()} {platform.release()}",
        cores=machine.cores,
        page_kib=os.sysconf("SC_PAGE_SIZE") >> 10,
        load=load,
        free_mib=machine.free_mib,
        int8_dot=processor.int8_dot,
        versions={
            "Python": platform.python_version(),
            "onnxruntime": onnxruntime_version(),
            "numpy": np.__version__,
        },
        model=manifest.model,
        weights=manifest.weights,
        bundle=bundle.checksum,
        plan=plan.to_json(),
        query_seconds=query,
        query_rows=prompts.n_rows,
        direction_seconds=direction,
        picture_seconds=picture,
        planned_mib=plan.peak_mib,
        peak_rss_mib=peak_rss_mib(),
        read_bytes_a_second=reading.bytes_a_second,
        read_is_cold=reading.is_cold,
        celsius_before=before,
        celsius_after=celsius(),
    )


def read_figures(path: AnyPath, bundle: Bundle) -> Figures:
    """What `doctor --bench` printed of this bundle, with --json or without.

    Raises UsageError for a file that is none of it, or of another bundle.
    """
    try:
        value = json.loads(read_limited(Path(path), FIGURES_LIMIT_BYTES))
        figures = read_dataclass(Figures, value.get("figures", value))
        if not min(figures.query_seconds, figures.query_rows, figures.picture_seconds) > 0:
            raise ValueError("a figure is 0")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, OSError) and not is_absent(error):
            raise cannot_read(Path(path), error) from error
        raise UsageError(
            f"The file {path} after --figures holds no figures of a board ({error}). It must be the JSON of "
            f"doctor --bench. On the board, type: sharpzo-edge doctor --bundle BUNDLE --bench --json"
        ) from error
    if figures.bundle != bundle.checksum:
        raise UsageError(
            f"The figures in {path} are of another bundle ({figures.model}, {figures.weights}) than "
            f"{bundle.folder}. They must be of the same one. On the board, type: "
            f"sharpzo-edge doctor --bundle BUNDLE --bench --json"
        )
    return figures


def board_name() -> str | None:
    """Such as "Raspberry Pi 5 Model B Rev 1.0". None where Linux does not tell."""
    try:
        return DEVICE_TREE.read_bytes().strip(b"\0").decode(errors="replace") or None
    except OSError:
        return None


def celsius() -> float | None:
    """The processor's temperature. None where Linux does not tell."""
    try:
        return int(TEMPERATURE.read_text()) / 1000
    except (OSError, ValueError):
        return None
