"""The networks, their configuration, weights, layers and key-value caches."""
