"""sharpzo-edge, device side: tune CLIP's prompt vector with forward passes alone."""

__version__ = "0.1.0"
