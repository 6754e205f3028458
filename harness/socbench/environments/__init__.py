"""Environments that runtimes need, made and cached by socbench."""
