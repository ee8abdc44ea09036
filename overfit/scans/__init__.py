"""Scan files of any kind in, closed heads in the canonical frame out."""
