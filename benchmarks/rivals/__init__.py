"""The same training iteration by others, for `benchmarks.peers`."""
