"""The command line as a user types it."""

from typer.testing import CliRunner

from windeye.cli.main import app


def windeye(*words, **options):
    """What a command prints and how it exits."""
    return CliRunner().invoke(app, [str(word) for word in words], **options)
