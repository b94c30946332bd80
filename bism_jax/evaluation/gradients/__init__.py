"""How far a gradient is from the exact one."""
