"""Default data: random heads from a parametric model."""
