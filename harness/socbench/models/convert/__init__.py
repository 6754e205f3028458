"""Converters, one file a target format; each runs in a process of its own."""
