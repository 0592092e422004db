"""Other ways of keeping keys and values than `cache.py`: in fewer bits, in a window, for many rows at once."""
