"""What every request and response passes: connections, guards, bodies, streams."""
