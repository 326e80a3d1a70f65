"""Commands that are imported when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

__all__ = ["LazyGroup", "UnknownCommandError"]


class UnknownCommandError(click.UsageError):
    """There is no such command; carries the hint that is shown with it."""

    def __init__(self, name: str, hint: str, ctx: click.Context) -> None:
        super().__init__(f"there is no command '{name[:60]}'", ctx)
        self.hint = hint


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own.

    Args:
        table: Name of a command to ``module:attribute`` and its line in the list of commands; an empty line hides it.
    """

    def __init__(self, *args: object, table: Mapping[str, tuple[str, str]], **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # click's own, passed on as they are
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names for the help page, in the table's order."""
        return [name for name, (_, summary) in self._table.items() if summary]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; None when there is none of that name."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._table.items() if summary])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called.

        Raises:
            UsageError: there is none of that name; similar names are suggested.
        """
        name = args[0]
        if not name.startswith("-") and name not in self._table:
            import difflib  # here because only a mistyped command needs it

            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            raise UnknownCommandError(
                name, f"did you mean: colab-bridge {near[0]}" if near else "see: colab-bridge --help", ctx
            )
        return super().resolve_command(ctx, args)
