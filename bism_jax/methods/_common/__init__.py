"""What methods share: states, optimisers, chains, shards of a batch, checks of data and densities."""
