"""What a fleet costs and saves, and docs/fleet.md. Run `python -m fleet.run`, or `make bench-fleet`."""
