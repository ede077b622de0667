"""From queries and keys to a recorded image: hooks, accumulators, families of models."""
