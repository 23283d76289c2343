"""Whether the pictures of an earlier run are still the same pictures."""

from __future__ import annotations

from ..run.progress import Caller
from .content import content_now, new_checksum, spelt
from .few_shot import FewShot, Split, shots_then_validation, taking_orders
from .folder import LabelledFolder

PASSED_OVER = "a file that was passed over"


def changed_picture(folder: LabelledFolder, few_shot: FewShot, split: Split, caller: Caller) -> str | None:
    """The first picture of a split whose file has another content by now; None when none has.

    It walks the way that `read_split` went: what it took and what it passed over is read again, a picture
    that it never tried is not. A picture that cannot be read at the moment counts as the same one: what was
    made of it is there.
    folder: must hold the same names and sizes
    Raises InterruptedRunError when the caller wants to stop.
    """
    _, validation = shots_then_validation(few_shot.shots, few_shot.n_val)
    passed_over, all_read = new_checksum(), split.is_lasting
    number = 0
    for paths, order in zip(folder.files, taking_orders(few_shot.seed, map(len, folder.files)), strict=True):
        last = number + validation.stop
        for i in order:
            if number == last:
                break
            caller.raise_if_stopped(
                "The pictures were being compared with those of before, which are kept. To go on, type the "
                "same command again, without --restart"
            )
            name = spelt(paths[i].relative_to(folder.root))
            if split.files[number : number + 1] != (name,):
                if all_read:
                    content = content_now(paths[i], is_read=False)
                    all_read = content is not None
                    passed_over.update(content or b"")
                continue
            caller.status(f"comparing picture {number + 1} of {len(split.files)} with the one of before")
            content = content_now(paths[i], is_read=True)
            if content is not None and content.hex() != split.contents[number]:
                return f"the picture {folder.root / name}"
            number += 1
    if all_read and passed_over.hexdigest() != split.passed_over:
        return PASSED_OVER
    return None
