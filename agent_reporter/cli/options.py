"""Every setting as a command line option, described where the setting is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.settings import Settings, described

if TYPE_CHECKING:
    import argparse

_PREFIX = "setting_"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give `parser` `--config` and an option for each setting."""
    group = parser.add_argument_group(
        "settings", "also AGENT_REPORTER_NAME in the environment, or name = value in the settings file"
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file, in TOML")
    for each in described():
        help_ = each.metadata["description"].replace("%", "%%")
        options: dict[str, Any] = {"dest": _PREFIX + each.name, "default": None, "help": help_}
        if isinstance(each.default, bool):
            options["action"] = "store_true"
        else:
            options["metavar"] = each.name.rpartition("_")[2].upper()
        group.add_argument("--" + each.name.replace("_", "-"), **options)


def load_settings(args: argparse.Namespace) -> Settings:
    """The settings that `args` and the other sources give; raises ConfigurationError."""
    return Settings.load(args.config, **given_settings(args))


def given_settings(args: argparse.Namespace) -> dict[str, object]:
    """The settings among `args`."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(_PREFIX) and value is not None
    }


def seconds(text: str) -> float:
    """A number of seconds, as an argument's type; raises ValueError for what is none."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
