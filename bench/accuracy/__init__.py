"""Accuracy per query: SharpZO, its rivals and closed-form heads on the same graph and features."""
