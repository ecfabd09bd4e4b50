"""`compress recipes`: the recipes that come with compress."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("recipes")
@click.argument("name", required=False)
@click.option(
    "-o", "--output", "output_file", type=options.FILE, help="Copy the recipe NAME to this file, to be changed."
)
@options.as_json
def recipes(name: str | None, output_file: Path | None, as_json: bool) -> None:
    """List the recipes that come with compress, print one, or copy one.

    Example: compress recipes digits -o mine.yaml
    """
    from compress import recipe, storage

    if name is None:
        found = recipe.shipped()
        rows = [(key, line) for key, line in found.items()]
        drawn = output.table("Recipes: compress run NAME -o FOLDER", ("name", "what it does"), rows)
        drawn.columns[1].justify = "left"
        output.result({"recipes": found}, drawn, as_json)
        return
    text = recipe.find(name).read_text()
    if output_file:
        options.refuse_existing(output_file)
        storage.write_text(output_file, text)
        output.result({"output": str(output_file)}, f"wrote {output_file}", as_json)
    else:
        output.result({"name": name, "recipe": text}, text.rstrip(), as_json)


COMMANDS = {"recipes": recipes}
