"""Hook of the documentation site: pages in; pages with the help of the commands out.

A marker `<!-- help: COMMAND -->` is replaced by what `hyperdiffusion COMMAND --help` prints.
"""

import contextlib
import io
import os
import re

# Columns of the help; wider lines would scroll on the page.
HELP_WIDTH = "100"
MARKER = re.compile(r"<!-- help: (\w+) -->")


def on_page_markdown(markdown: str, **_) -> str:
    """Return the page with its markers replaced."""
    return MARKER.sub(lambda marker: f"```text\n{help_text(marker[1])}\n```", markdown)


def help_text(command: str) -> str:
    """Return the help of one command of the command line."""
    # Imported here: pages without a marker need no PyTorch.
    from hyperdiffusion.cli import main

    printed = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = HELP_WIDTH
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([command, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    if not printed.getvalue().strip():
        raise RuntimeError(f"`hyperdiffusion {command} --help` printed nothing")
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
