"""`compress import`: from plain weights to a checkpoint."""

from pathlib import Path

import click
import rich_click

from compress.errors import UsageError

from . import options, output


@rich_click.command("import")
@click.argument("weights", required=False)
@options.network
@click.option(
    "--weights",
    "published",
    metavar="NAME",
    help="Weights torchvision publishes, such as DEFAULT; they are downloaded.",
)
@click.option("--untrained", is_flag=True, help="Random weights instead, to train from nothing.")
@click.option(
    "--trained-on",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="Whether the weights have seen the validation images.",
)
@click.option("--input-shape", metavar="C,H,W", help="What the images are, where no --data says so.")
@options.data
@options.data_folder
@options.split_seed
@options.out
@options.seed
@options.as_json
def import_weights(
    weights: str | None,
    network: str | None,
    published: str | None,
    untrained: bool,
    trained_on: str,
    input_shape: str | None,
    data: str | None,
    data_folder: Path | None,
    split_seed: int,
    output_file: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Make a checkpoint of a trained network's weights: a state dict (.pth, .pt) or .safetensors file.

    The networks are resnet20 ... resnet110, mobilenetv2, mobilenetv2_half, vgg16_bn and digits_cnn, torchvision:NAME,
    timm:NAME, and FILE.py:FUNCTION, a function of your own that returns the network.

    Examples:

        compress import weights.pth --network resnet20 --data cifar10 -o base.safetensors

        compress import torchvision:resnet50 --weights DEFAULT -o base.safetensors

        compress import weights.pth --network net.py:build --data imagefolder:photos -o base.safetensors
    """
    from compress import checkpoint as files
    from compress import networks
    from compress.data.load import load
    from compress.importing import import_checkpoint

    source = _source(weights, network, published, untrained)
    if network is None:
        network = weights
    if network is None:
        raise UsageError("which network? Give --network NAME.")
    if isinstance(source, Path):
        options.refuse_overwriting(output_file, source)
    networks.resolve(network)
    spec = load(data, data_folder, split_seed).spec if data else None
    made = import_checkpoint(source, network, spec, options.shape(input_shape), trained_on=trained_on, seed=seed)  # type: ignore[arg-type]  # one of click's choices
    files.save(made, output_file)
    value = {
        "output": str(output_file),
        "fingerprint": made.fingerprint,
        "network": made.architecture.title,
        "trained_on": made.trained_on,
    }
    lines = [
        f"import: wrote {output_file} ({made.architecture.title})",
        *(f"  {note}" for note in made.history[-1].notes),
    ]
    output.result(value, "\n".join(lines), as_json)


def _source(weights: str | None, network: str | None, published: str | None, untrained: bool) -> Path | str | None:
    """The weights' file, their published name, or None for random ones; exactly one of the three has to be asked for."""
    file = weights if network is not None else None
    if sum(map(bool, (file, published, untrained))) != 1:
        raise UsageError(
            "give exactly one of: a file of weights with --network NAME, torchvision:NAME with --weights DEFAULT, or --network NAME with --untrained."
        )
    return Path(file) if file else published


COMMANDS = {"import": import_weights}
