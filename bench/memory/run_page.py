"""What the page's processes take. Writes bench/results/page_memory.json, and its section of docs/memory.md.

python -m memory.run_page [--pictures N ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from shared.machine import describe_machine
from shared.pages import keep_results

from . import processes
from .page import PAGE, RESULTS_OF_THE_PAGE, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", nargs="+", type=int, default=[200, 10_000])
    given = parser.parse_args()
    rows = []
    for n in given.pictures:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(processes.measure(n, Path(folder)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    keep_results({"machine": describe_machine(), "rows": rows}, RESULTS_OF_THE_PAGE)
    PAGE.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
