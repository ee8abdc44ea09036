"""`python -m hyperdiffusion` is the command `hyperdiffusion`."""

from hyperdiffusion.cli import main

if __name__ == "__main__":
    main()
