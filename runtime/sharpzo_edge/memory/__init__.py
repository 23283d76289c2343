"""The memory budget, and the plan that fits into it."""
