"""Documents: the pages of files as images, what a model reads on them, and its export."""
