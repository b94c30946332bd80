"""How samples compare with data."""
