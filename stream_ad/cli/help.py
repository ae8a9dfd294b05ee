"""Help of the commands: plain text in sections, the same on a terminal and in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # of click, or of typer's copy of it
INPUT = "Settings"
"""Section of the options through which every command reads its settings."""


def example(*lines: str) -> str:
    """Return an epilog that shows how to call a command; the lines come without ``stream-ad``."""
    return "\b\nExample:\n" + "\n".join(f"  stream-ad {line}" for line in lines)


class PlainCommand(TyperCommand):
    """A command whose options are listed in sections, by their ``rich_help_panel``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, with plain names for the arguments."""
        arguments = (param for param in self.get_params(ctx) if isinstance(param, TyperArgument))
        return [self.options_metavar or "", *(_usage(argument) for argument in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options in sections."""
        write_sections(formatter, self.get_params(ctx), ctx)


class PlainGroup(TyperGroup):
    """A group whose commands are listed in sections, by their ``rich_help_panel``.

    An unknown command is answered with the most similar command or option.
    """

    command_class = PlainCommand

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command by its name; the error for an unknown one suggests what was meant."""
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            from stream_ad.settings.keys import closest

            options = [name for option in self.get_params(ctx) for name in option.opts if name.startswith("--")]
            choices = {name.removeprefix("--"): name for name in (*options, *self.commands)}
            if (meant := closest(args[0], choices)) is not None:
                error.message = f"{error.message.rstrip('.')}. Did you mean '{choices[meant]}'?"
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options in sections, then the commands."""
        write_sections(formatter, self.get_params(ctx), ctx)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the visible commands in sections."""
        shown = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        commands = [(name, command) for name, command in shown if command is not None and not command.hidden]
        width = formatter.width - 6 - max(len(name) for name, _ in commands)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands:
            title = _text(getattr(command, "rich_help_panel", None)) or "Commands"
            sections.setdefault(title, []).append((name, command.get_short_help_str(width)))
        _write(formatter, sections)


def write_sections(formatter: Any, params: Iterable[Any], ctx: Any) -> None:
    """Write arguments and options by section, in order of appearance, with the settings last."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in params:
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if isinstance(param, TyperArgument):
            sections["Arguments"].append((param.metavar or str(param.name).upper(), record[1]))
        else:
            sections.setdefault(_text(getattr(param, "rich_help_panel", None)) or "Options", []).append(record)
    sections[INPUT] = sections.pop(INPUT, [])
    _write(formatter, sections)


def _write(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def _usage(argument: TyperArgument) -> str:
    name = argument.metavar or str(argument.name).upper()
    name = name if argument.required or name.startswith("[") else f"[{name}]"
    return name if argument.nargs == 1 else f"{name}..."


def _text(panel: object) -> str:
    """Return the name of a section; typer passes a placeholder of its own where none was given."""
    return panel if isinstance(panel, str) else ""
