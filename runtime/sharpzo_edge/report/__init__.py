"""The report of a result: one HTML file. Its figures (`data`) and their source (`source`) need no library."""
