"""Shell completion: `pickcal completion SHELL` prints the script, `pickcal --install-completion` sets it up."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from pickcal.cli.app import ABOUT, app
from pickcal.cli.help import examples

Shell = Literal["bash", "zsh", "fish", "powershell"]


@app.command(
    group=ABOUT,
    help_epilogue=examples(
        "# for you, once: your shell is found out, and its start-up file gets a line",
        "pickcal --install-completion",
        "# for everybody on a machine, as an administrator or in a container recipe",
        "pickcal completion bash > /etc/bash_completion.d/pickcal",
    ),
)
def completion(shell: Annotated[Shell, Parameter(help="Which shell.")]) -> None:
    """Print the script that lets a shell complete commands, flags and values with TAB."""
    print(app.generate_completion(shell=shell), end="")


app.register_install_completion_command(
    group=ABOUT,
    help="Set up completion with TAB for your shell.",
    help_epilogue=examples(
        "pickcal --install-completion",
        "pickcal --install-completion --shell zsh",
    ),
)
