"""Kills runs at any moment, takes away their disk and their hosts, and starts them again by the same call."""
