"""Integer arithmetic for a target: where the integers go, what their scales are, and the network that holds them."""
