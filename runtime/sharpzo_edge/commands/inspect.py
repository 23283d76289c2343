"""`inspect`: what a bundle or a tuned prompt is."""

from __future__ import annotations

import dataclasses
import errno
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..clip.bundle import Bundle
from ..errors import UsageError, cannot_read, is_absent
from ..tuning.tuned_prompt import TunedPrompt


@dataclass(frozen=True)
class Inspection:
    """found: a Bundle when the path is a folder, otherwise a TunedPrompt."""

    path: Path
    found: Bundle | TunedPrompt

    def to_json(self) -> dict[str, Any]:
        found = self.found
        if isinstance(found, Bundle):
            return {"kind": "bundle", "checksum": found.checksum, **dataclasses.asdict(found.manifest)}
        return {"kind": "prompt", "context_shape": list(found.context.shape), **found.about}


def inspect(path: Path) -> Inspection:
    """Raises UsageError when there is nothing, BundleError or PromptFileError when it is neither."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if not is_absent(error):
            raise cannot_read(path, error) from error
        why = f" ({error.strerror})" * (error.errno != errno.ENOENT)
        raise UsageError(
            f"There is nothing at {path}{why}. inspect takes a bundle's folder or the file of a tuned "
            f"prompt. Check the path"
        ) from error
    return Inspection(path, Bundle.open(path) if is_folder else TunedPrompt.open(path))
