"""Checkpoints of a run, and what determines the run that may continue one."""
