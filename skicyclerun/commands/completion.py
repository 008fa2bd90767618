"""`skicyclerun completion`: what a shell needs to complete commands and options; click's own machinery."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from skicyclerun.commands import exit_codes

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog=exit_codes.HELP)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> int:
    """Print what makes a shell complete commands and options.

    \b
    bash 4.4 or later, in ~/.bashrc:  eval "$(skicyclerun completion bash)"
    zsh, in ~/.zshrc:                 eval "$(skicyclerun completion zsh)"
    fish: skicyclerun completion fish > ~/.config/fish/completions/skicyclerun.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows all three
    root = context.find_root()
    click.echo(kind(root.command, {}, "skicyclerun", "_SKICYCLERUN_COMPLETE").source())
    return exit_codes.OK
