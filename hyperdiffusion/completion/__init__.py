"""Whole heads from partial scans: what a scan shows is kept, what it does not is drawn from a model."""
