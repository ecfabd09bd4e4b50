"""Channels that go together, which of them go, and the smaller network that is left."""
