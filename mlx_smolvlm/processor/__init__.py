"""Messages and media -> a prompt whose tokens are known before a pixel is made."""
