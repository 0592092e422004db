"""Where pictures and videos come from: files, addresses, bytes; and how they are to be read."""
