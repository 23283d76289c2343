"""Accuracy per query: SharpZO's presets, the rivals and the closed-form heads, on the same graph and features."""
