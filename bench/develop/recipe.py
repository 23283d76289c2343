"""Makes the development set: `python -m develop.recipe --work DIR`, with export/ and bench/ on the path.

Leaves DIR/develop_tasks, and DIR/MODEL/bundle for each model. Every step is skipped when its result is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo_model.prepare import prepare, step
from demo_model.recipe import make_model

from .kinds import KINDS, SEEDS
from .names import ALL
from .tasks import write_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the models and tasks of the development set.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--minutes", type=float, metavar="M", help="end each training in this time")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    emoji = prepare(options.work)
    tasks = options.work / "develop_tasks"
    step(tasks / "tasks.json", "development tasks", lambda: write_tasks(options.work, emoji, tasks))
    for kind in KINDS:
        make_model(
            kind,
            options.work,
            emoji,
            list(ALL),
            options.work / kind.name,
            minutes=options.minutes,
            seed=SEEDS[kind.name],
            threads=options.threads,
        )


if __name__ == "__main__":
    main()
