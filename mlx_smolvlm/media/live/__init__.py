"""Live video: cameras, streams and pipes."""
