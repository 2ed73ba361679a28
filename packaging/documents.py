"""Writes the man pages and the shell completion, from the parser of the program: `documents.py FOLDER`.

FOLDER is laid out as /usr/share is: `man/man1`, `bash-completion/completions`, `zsh/vendor-completions`.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shtab

from agent_reporter.cli.main import COMMANDS, build_parser
from agent_reporter.version import __version__

PROGRAM = "agent-reporter"
EXIT_STATUS = {
    0: "It is done.",
    1: "It failed; a sentence on standard error says what to do.",
    2: "Wrong usage, or wrong settings.",
    75: "Not everything could be done now. Try again later.",
}
RUN_EXIT_STATUS = (
    "The engine's own; 128 and the signal's number if one ended it; 125 to 127 if it was not started."
)
FILES = {
    "/etc/agent-reporter/agent-reporter.toml": "Settings.",
    "/etc/agent-reporter/token": "The token of the daemon, as a systemd credential. Only root may read it.",
    "/run/agent-reporter/api.sock": "Where the daemon takes reports.",
    "/var/lib/agent-reporter/spool": "What the daemon has not delivered yet.",
    "~/.local/state/agent-reporter/spool": "The same, of a user whose commands deliver by themselves.",
}


def main(folder: Path) -> None:
    """Write everything into `folder`."""
    parser = build_parser(COMMANDS)
    described = subparsers(parser)
    pages = {PROGRAM: overview(parser)}
    pages |= {f"{PROGRAM}-{name}": page(name, described[name]) for name in COMMANDS}
    for name, text in pages.items():
        write(folder / "man" / "man1" / f"{name}.1", text)
    complete_files(parser)
    for command in described.values():
        complete_files(command)
    write(folder / "bash-completion" / "completions" / PROGRAM, shtab.complete(parser, "bash"))
    write(folder / "zsh" / "vendor-completions" / f"_{PROGRAM}", shtab.complete(parser, "zsh"))


def write(file: Path, text: str) -> None:
    """Write `text` into `file`, and make its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command. argparse has no public way to ask for them, or for arguments."""
    for action in parser._actions:  # noqa: SLF001 - see above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - see above
            return dict(action.choices)
    raise ValueError(f"{parser.prog} has no commands")


def complete_files(parser: argparse.ArgumentParser) -> None:
    """Have shells complete names of files where an option takes one."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way
        if action.metavar in {"FILE", "SOCKET"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # how shtab is told
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # how shtab is told


def overview(parser: argparse.ArgumentParser) -> str:
    """The page of the program as a whole."""
    lines = [
        *head(PROGRAM, "reports restores to a backup control plane"),
        *synopsis(parser),
        ".SH DESCRIPTION",
        text(parser.description),
        ".SH COMMANDS",
    ]
    for name, summary in COMMANDS.items():
        lines += [".TP", f".BR {text(PROGRAM)}\\-{text(name)} (1)", f"{sentence(summary)}"]
    lines += options(parser)
    return finish([*lines, *exit_status(), *files()], [f"{PROGRAM}-{name}" for name in COMMANDS])


def page(name: str, parser: argparse.ArgumentParser) -> str:
    """The page of one command."""
    lines = [
        *head(f"{PROGRAM}-{name}", COMMANDS[name]),
        *synopsis(parser),
        ".SH DESCRIPTION",
        text(parser.description),
        *([".PP", text(parser.epilog)] if parser.epilog else []),
        *options(parser),
        ".SH EXIT STATUS",
    ]
    lines = [*lines, text(RUN_EXIT_STATUS)] if name == "run" else [*lines[:-1], *exit_status()]
    return finish([*lines, *files()], [PROGRAM])


def head(name: str, summary: str) -> list[str]:
    """The title and the name; dated by SOURCE_DATE_EPOCH, so that two builds are the same."""
    day = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "1577836800")), UTC).date()
    return [
        f'.TH "{text(name.upper())}" 1 {day} "{PROGRAM} {__version__}" "User Commands"',
        ".SH NAME",
        f"{text(name)} \\- {text(summary)}",
    ]


def synopsis(parser: argparse.ArgumentParser) -> list[str]:
    """The usage; where it would list every option, they are left to the list of options."""
    shown = " ".join(parser.format_usage().removeprefix("usage:").split())
    if "[--config" in shown or len(shown) > 200:
        taken = [named(action) for action in parser._actions if not action.option_strings]  # noqa: SLF001
        shown = " ".join([parser.prog, "[options]", *taken])
    return [".SH SYNOPSIS", f".B {text(shown)}"]


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Each group of arguments as a section."""
    lines: list[str] = []
    for group in parser._action_groups:  # noqa: SLF001 - argparse has no public way
        actions = [
            action
            for action in group._group_actions  # noqa: SLF001 - argparse has no public way
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        ]
        if actions:
            title = "ARGUMENTS" if group.title == "positional arguments" else (group.title or "").upper()
            lines += [f".SH {text(title)}", *([sentence(group.description)] if group.description else [])]
        for action in actions:
            lines += [".TP", invocation(action), explained(action)]
    return lines


def invocation(action: argparse.Action) -> str:
    """An option with its value, or an argument."""
    if not action.option_strings:
        return f".I {text(named(action))}"
    value = "" if action.nargs == 0 else f" \\fI{text(named(action))}\\fR"
    return ", ".join(f"\\fB{text(option)}\\fR{value}" for option in action.option_strings)


def named(action: argparse.Action) -> str:
    """How an argument's value is called."""
    if action.metavar is None and action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    name = action.metavar or action.dest.upper()
    return name if isinstance(name, str) else " ".join(name)


def explained(action: argparse.Action) -> str:
    """What an argument is for."""
    values: dict[str, Any] = vars(action) | {"prog": PROGRAM}
    return sentence((action.help or "") % values) if action.help else r"\&"


def exit_status() -> list[str]:
    """The section of the exit status."""
    return [
        ".SH EXIT STATUS",
        *(line for status, why in EXIT_STATUS.items() for line in (".TP", str(status), text(why))),
    ]


def files() -> list[str]:
    """The section of the files."""
    return [
        ".SH FILES",
        *(line for file, what in FILES.items() for line in (".TP", f".I {text(file)}", text(what))),
    ]


def finish(lines: list[str], see_also: list[str]) -> str:
    """The page, with what else to read."""
    others = " ,\n.BR ".join(f"{text(other)} (1)" for other in see_also)
    return "\n".join([*lines, ".SH SEE ALSO", f".BR {others}", ""])


def sentence(words: str) -> str:
    """`words` from a capital letter to a full stop."""
    return text(words[:1].upper() + words[1:] + ("" if words.endswith((".", ")")) else "."))


def text(words: str | None) -> str:
    """`words` for roff: nothing of them is taken for a command, and hyphens can be copied."""
    escaped = (
        (words or "").replace("\\", r"\(rs").replace("-", r"\-").replace("~", r"\(ti").replace("'", r"\(aq")
    )
    return r"\&" + escaped if escaped.startswith(".") else escaped


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
