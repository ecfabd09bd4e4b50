"""Images, their labels, and what is done to them before a network sees them."""
