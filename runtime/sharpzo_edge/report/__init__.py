"""The report of a result: one HTML file. Its figures need no library."""
