"""Every command of the app, by its words."""

from __future__ import annotations

import typer

from medgen.pipelines.cli.app import app


def commands(group=None, prefix=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command
