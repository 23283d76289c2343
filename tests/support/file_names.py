"""What file names this process can write."""

import sys

import pytest

of_any_script = pytest.mark.skipif(
    sys.getfilesystemencoding() != "utf-8", reason="this locale has no file names in UTF-8"
)
