"""Documents: pages of files as images, what models read on them (DocTags), and its way to Markdown, HTML and JSON."""
