"""What the child process does: a job from standard input becomes a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import SharpzoError
from ..process_memory import govern
from ..run.files import replacing
from ..run.typed_json import read_dataclass
from .data import Report
from .figures import report_of
from .render import render
from .source import source_of_tune
from .thumbnails import with_thumbnails


def main() -> None:
    """Ends with exit code 1, and a line on standard error, when the report cannot be made."""
    govern()
    try:
        write(json.load(sys.stdin))
    except SharpzoError as error:
        raise SystemExit(str(error)) from None
    except MemoryError:
        raise SystemExit("No memory is left on this machine, or within a limit on this program") from None


def write(job: dict[str, Any]) -> None:
    """Make the report of a job (Job.to_json) and write it.

    Raises SharpzoError, also when the run's files are not what a run writes.
    """
    report = with_thumbnails(_figures(job), Path(job["images"]), job["decoding_bytes"])
    with replacing(Path(job["target"])) as file:
        file.write(render(report).encode(errors="backslashreplace"))  # names may be any bytes


def _figures(job: dict[str, Any]) -> Report:
    if job["tuned"] is not None:
        try:
            return report_of(source_of_tune(Path(job["tuned"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SharpzoError(
                f"The run's files cannot be read: {error!r}. They must be as this version of tune writes "
                f"them. To have them anew, tune again with --restart"
            ) from error
    return read_dataclass(Report, job["report"])


if __name__ == "__main__":
    main()
