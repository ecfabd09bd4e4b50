"""Batch norms absorbed into the layers before them, exactly."""
