"""`python -m orionbed` is the command line."""

from orionbed.cli import main

if __name__ == "__main__":
    main()
