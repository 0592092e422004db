"""The OpenAI-compatible server: one engine thread, an ASGI app, and the page at its address.

Needs the extra `server` (`pip install 'mlx-smolvlm[server]'`). Nothing else of the package imports it.
"""
