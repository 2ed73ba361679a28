"""Every setting as a command line option, described where the setting is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.settings import Settings

if TYPE_CHECKING:
    import argparse

_PREFIX = "setting_"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give `parser` `--config` and an option for each setting."""
    group = parser.add_argument_group(
        "settings", "also AGENT_REPORTER_NAME in the environment, or name = value in the settings file"
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file, in TOML")
    for name, field in Settings.model_fields.items():
        options: dict[str, Any] = {"dest": _PREFIX + name, "default": None, "help": _help(field.description)}
        if field.annotation is bool:
            options["action"] = "store_true"
        else:
            options["metavar"] = name.rpartition("_")[2].upper()
        group.add_argument("--" + name.replace("_", "-"), **options)


def load_settings(args: argparse.Namespace) -> Settings:
    """The settings that `args` and the other sources give; raises ConfigurationError."""
    given = {
        name.removeprefix(_PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(_PREFIX) and value is not None
    }
    return Settings.load(args.config, **given)


def _help(description: str | None) -> str:
    return (description or "").replace("%", "%%")


def seconds(text: str) -> float:
    """A number of seconds, as an argument's type; raises ValueError for what is none."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
