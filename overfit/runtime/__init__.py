"""Errors, files, processes and machines: what both stages stand on."""
