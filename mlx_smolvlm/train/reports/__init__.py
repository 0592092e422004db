"""What people see of a run: rows with their trained tokens, curves, answers, the report."""
