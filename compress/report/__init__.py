"""From recorded measurements to what people read: a baseline beside its candidates, on a page, in a table, as JSON."""
