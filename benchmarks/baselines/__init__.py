"""Generators that the method is compared with: fits or scans in, new heads out, each trained for a given time."""
