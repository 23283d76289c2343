"""sharpzo-edge, workstation side: an open_clip model becomes a bundle (needs torch)."""
