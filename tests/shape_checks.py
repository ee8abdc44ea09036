"""Checks the types and array shapes of every annotated function of both packages at run time."""

from beartype import BeartypeConf, beartype

# An int is a float, as in PEP 484.
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
