"""An hour of kills, faults, signals and mutants, on the commands that a user types."""
