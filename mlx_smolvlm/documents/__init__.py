"""Documents: DocTags, what the models for document conversion write, to a tree and on to Markdown, HTML and JSON."""
