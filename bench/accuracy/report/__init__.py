"""From the stored runs to docs/accuracy.md (page, table, targets) and docs/accuracy.svg (plot)."""
