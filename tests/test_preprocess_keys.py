"""The preprocessing record holds the keys that the device computes with, and no other."""

import dataclasses

import pytest

from sharpzo_edge.clip.manifest import Preprocess
from sharpzo_edge.errors import BundleError

KEYS = [field.name for field in dataclasses.fields(Preprocess)]


def test_an_unknown_key_is_refused_by_its_name(bundle_copy):
    manifest = bundle_copy.manifest()
    manifest["preprocess"]["antialias"] = False
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match="antialias"):
        bundle_copy.open()


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_refused_by_its_name(bundle_copy, key):
    manifest = bundle_copy.manifest()
    del manifest["preprocess"][key]
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match=key):
        bundle_copy.open()
