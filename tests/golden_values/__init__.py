"""Golden values in NumPy alone: `python -m tests.golden_values.write` rewrites `golden.json`."""
