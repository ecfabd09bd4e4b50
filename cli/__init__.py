"""The command line, installed as `compress.cli`: words for what the library does, and nothing of its own."""

if __name__ != "compress.cli":
    raise ImportError(
        f"this package is installed as compress.cli, and was imported as {__name__}; import compress.cli instead"
    )
