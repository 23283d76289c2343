"""Pictures come in, answers go out, for as long as the command runs."""
