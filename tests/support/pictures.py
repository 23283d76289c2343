"""What the tests of pictures share."""

from sharpzo_edge.clip.manifest import Preprocess


def preprocess(size=(32, 32), resize_mode="shortest", interpolation="bicubic", fill_color=0):
    mean, std = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
    return Preprocess(size, "RGB", mean, std, interpolation, resize_mode, fill_color)
