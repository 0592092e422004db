"""Key-value caches: plain, quantized, rotating, or with a row for each of many conversations."""
