"""What running a tower step by step needs: one buffer for weights, and arrays that stay where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..types import Floats
from .bundle import Bundle
from .manifest import Step, TangentStep

Weights = dict[str, NDArray[np.generic]]


class StepWeights:
    """Reads the weights of steps from one data file of a bundle. Memory: those of the largest step.

    One read at a time: it writes over what the one before has yielded.
    is_held: each step is read once and held. Memory: those of all steps that are read
    """

    def __init__(self, bundle: Bundle, data: str, steps: Sequence[Step | TangentStep], is_held: bool = False):
        self._bundle, self._data = bundle, data
        self._steps = steps
        self._held: dict[int, Weights] | None = {} if is_held else None
        self._buffer = np.empty(0 if is_held else max(step.span[1] for step in steps), np.uint8)

    def read(self, steps: slice = slice(None)) -> Iterator[Weights]:
        """Yields the weights of these steps by name. They are valid until the next step's are read.

        Raises BundleError when the file ends too early.
        """
        numbers = range(len(self._steps))[steps]
        if self._held is not None and self._held.keys() >= set(numbers):
            yield from (self._held[number] for number in numbers)
            return
        with self._bundle.reading(self._data):
            opened = self._bundle.path(self._data).open("rb", buffering=0)
        with opened as file:
            for number in numbers:
                step = self._steps[number]
                start, length = step.span
                buffer = self._buffer if self._held is None else np.empty(length, np.uint8)
                self._fill(buffer, file, start, length)
                weights: Weights = {
                    t.name: np.frombuffer(buffer, t.dtype, int(np.prod(t.shape)), t.offset - start).reshape(
                        t.shape
                    )
                    for t in step.weights
                }
                if self._held is not None:
                    self._held[number] = weights
                yield weights

    def _fill(self, buffer: NDArray[np.uint8], file: BinaryIO, start: int, length: int) -> None:
        view = buffer[:length].data
        done = 0
        while done < length:
            with self._bundle.reading(self._data):
                n = os.preadv(file.fileno(), [view[done:]], start + done)
            if n == 0:
                raise BundleError(
                    f"{self._bundle.path(self._data)} ends in the middle of a block, at byte {start + done}. "
                    f"It must be as export wrote it. Copy the bundle again"
                )
            done += n


def kept(own: Floats | None, answer: Floats) -> Floats:
    """A step's output, copied into the array of the step before where it fits, otherwise into a new one.

    So arrays that outlive a run stay at the same addresses, and the memory that a run used can return as a
    whole. Otherwise each step would leave its outputs somewhere in the middle of it.
    """
    if own is None or own.shape != answer.shape:
        return np.array(answer)
    np.copyto(own, answer)
    return own
