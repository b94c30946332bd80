"""The loop: compiled chunks of iterations, their layout over devices and hosts, and what is between them."""
