"""Video that goes on: cameras, streams and pipes, captioned in windows."""
