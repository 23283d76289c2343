"""What is shipped: a small CLIP and few-shot tasks, so that a first run needs no download.

`bundle/` is an exported bundle like any other; `tasks/NAME/train` and `tasks/NAME/test` are folders of
pictures like any user's. commands/demo.py is the demo on them.
"""

from pathlib import Path

HERE = Path(__file__).parent
BUNDLE = HERE / "bundle"
TASKS = HERE / "tasks"
DEFAULT_TASK = "subgroups"


def task_names() -> list[str]:
    return sorted(p.name for p in TASKS.iterdir() if (p / "train").is_dir())
