"""Parts of `benchmarks.unroll_depth`."""
