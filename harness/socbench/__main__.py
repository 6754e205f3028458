"""``python -m socbench``."""

from socbench.cli import main

if __name__ == "__main__":
    main()
