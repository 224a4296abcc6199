"""Tables of the commands: without lines, the title on the left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table


def show(*header: str, rows: Iterable[Sequence[str]], title: str | None = None, right: Collection[int] = ()) -> None:
    """Print a table; the columns with an index in `right` are right-aligned."""
    table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in right:
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # do not wrap lines in a pipe
    console.print(table)
