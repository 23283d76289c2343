"""onnxruntime with its telemetry off. Whoever of us needs onnxruntime takes it from here.

From 1.29 on, onnxruntime on Linux sends reports to its maker: after nine seconds, and at exit. It decides so
once, when it is imported, and leaves files in the user's cache folder. Here it is imported with the variable
that switches this off, and the environment is put back as it was. A program that has imported onnxruntime
before us has decided for itself; nothing can be changed then.
"""

from __future__ import annotations

import os

from ..libraries import NO_TELEMETRY

_before = os.environ.get(NO_TELEMETRY)
os.environ[NO_TELEMETRY] = "1"
try:
    import onnxruntime as ort
finally:
    if _before is None:
        del os.environ[NO_TELEMETRY]
    else:
        os.environ[NO_TELEMETRY] = _before

__all__ = ["ort"]
