"""From image features to a tuned prompt."""
