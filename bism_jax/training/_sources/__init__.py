"""Where minibatches come from: arrays, tables, sparse rows, random access and iterables."""
