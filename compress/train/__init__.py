"""The one training loop, and what it is given: an objective, a rate, an optimiser, augmentation."""
