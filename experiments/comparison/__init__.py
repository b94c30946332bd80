"""The parts of `experiments.compare`: what is compared on which data, one run, and the report."""
