"""Video files: the times of their frames, the choice of frames, and decoding."""
