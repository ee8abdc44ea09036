"""`python -m hyperdiffusion` is the command `hyperdiffusion`."""

from .cli import main

if __name__ == "__main__":
    main()
