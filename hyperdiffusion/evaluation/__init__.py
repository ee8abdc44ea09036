"""How good and how new generated heads are."""
