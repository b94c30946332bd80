"""Starting an experiment on many hosts."""
