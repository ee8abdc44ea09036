"""Canonical space: where eyes, nose, lips and ears of all heads lie in one place, and the warps from it to heads."""
