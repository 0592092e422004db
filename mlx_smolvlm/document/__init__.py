"""The command `document`: PDFs, images and DocTags -> Markdown, HTML, JSON or DocTags."""
