"""Optimisers and losses. They know numpy and nothing else: no CLIP, no files."""
