"""What goes wrong through no fault of the program: one line that names the thing and the remedy."""


class BadInput(ValueError):
    """Input that cannot be used. The command line prints its message as one line and exits with 2."""
