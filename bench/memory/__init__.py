"""What a tune and the page take in memory, seen from outside."""
