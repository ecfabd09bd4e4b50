"""`python -m compress`: the command line, also where a Unix `compress` comes first on the PATH."""

from compress.cli.main import main

if __name__ == "__main__":
    main()
