"""The mini suite: a benchmark that is drawn on the spot."""
