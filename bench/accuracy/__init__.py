"""Accuracy per query: SharpZO's presets, rivals and closed-form heads, on the same graph and features."""
