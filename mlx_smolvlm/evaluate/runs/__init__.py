"""Runs: their folder, lines, summary, report, and the comparison of two."""
