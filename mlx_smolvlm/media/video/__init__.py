"""Video files: their frames' times, the choice of frames, and the pictures."""
