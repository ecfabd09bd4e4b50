"""Residual blocks that are gone: what stood there adds nothing any more, so the identity stands in its place."""

from collections.abc import Iterable

from torch import nn

from compress.errors import CompressError, nearest


def bypass(network: nn.Module, removed: Iterable[str]) -> nn.Module:
    """Put the identity in place of the modules `removed`, in `network` itself.

    Raises CompressError for a name the network does not have.
    """
    for name in removed:
        modules = dict(network.named_modules(remove_duplicate=False))
        if not name or name not in modules:
            near = nearest(name, modules)
            raise CompressError(
                f"the block {name!r} was removed, and this network does not have it{f' (it has {near[0]})' if near else ''}. "
                "The checkpoint belongs to another network, or was edited."
            )
        network.set_submodule(name, nn.Identity())
    return network
