"""Integer arithmetic for a target: where the integers go, what their scales are, and the network that holds them."""

import logging

logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao's import speaks of its own insides
