"""`compress env`: versions and machine, for a bug report."""

import rich_click

from . import options, output


@rich_click.command("env")
@options.as_json
def env(as_json: bool) -> None:
    """Versions and machine, for a bug report. Says nothing of users, paths or the network.

    Example: compress env
    """
    import os

    from compress import __version__, document
    from compress.environment import environment

    found = {"compress": __version__, **document.plain(environment(os.cpu_count() or 1))}
    versions = found.pop("versions")
    lines = [f"{name}: {value}" for name, value in found.items()] + [
        f"  {name} {version}" for name, version in versions.items()
    ]
    output.result({**found, "versions": versions}, "\n".join(lines), as_json)


COMMANDS = {"env": env}
