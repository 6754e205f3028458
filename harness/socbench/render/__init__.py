"""Printers of results: terminal, Markdown, CSV, JSON, HTML and figures, all from one schema of columns."""
