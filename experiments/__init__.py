"""Experiments: each is a module with a command line that writes a run folder."""
