"""What the host says: /proc, files of secrets, names in a target folder; and what is said to journal and manager.

An input is the content of a file, or the words that are said.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from agent_reporter import processes
from agent_reporter.control_plane.secret_file import MAX_SECRET_BYTES, read_secret
from agent_reporter.daemon.notify import Notifier, inherited_sockets
from agent_reporter.engines.running import io_counters
from agent_reporter.engines.running.process_tree import ProcessTree
from agent_reporter.engines.running.target_folder import Walk, checked_target
from agent_reporter.errors import ConfigurationError, SignInError
from agent_reporter.log_journal import encode_fields, journal_fields
from agent_reporter.log_lines import in_one_line
from agent_reporter.model.process_identity import ProcessIdentity
from tests.fuzz.fuzzing import Target, a_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.fuzz.fuzzing import Check

PARENT, CHILD = 4_000_001, 4_000_002
"""Numbers that no process of this machine has."""
FIELDS = b" S %d 5 777 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17\n"
IO = b"rchar: 10\nwchar: 2000\nsyscr: 1\nsyscw: 2\nread_bytes: 0\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"


def a_process_may_have_any_name(data: bytes) -> None:
    """The parent of a process, its session and its start are read past its name, whatever that is."""
    name = data.replace(b"\0", b"")[:64]
    files = {
        f"/proc/{PARENT}/stat": b"%d (engine)" % PARENT + FIELDS % 1,
        f"/proc/{CHILD}/stat": b"%d (%b)" % (CHILD, name) + FIELDS % PARENT,
        **{f"/proc/{pid}/io": IO for pid in (PARENT, CHILD)},
    }

    def read_bytes(path: Path) -> bytes:
        content = files.get(str(path))
        if content is None:
            raise FileNotFoundError(str(path))
        return content

    with (
        patch.object(Path, "read_bytes", read_bytes),
        patch.object(processes, "boot_id", lambda: "this-boot"),
        patch("os.listdir", lambda _: ["self", "1", str(PARENT), str(CHILD), "²"]),
    ):
        tree = ProcessTree(ProcessIdentity(PARENT, 98765, "this-boot")).members()
        assert {stat.pid: (stat.state, stat.parent, stat.session) for stat in tree} == {
            PARENT: ("S", 1, 777),
            CHILD: ("S", PARENT, 777),
        }
        total = io_counters.TreeTotal()
        samples = io_counters.read_samples(tree)
        assert samples is not None
        total.add(samples)
        assert total.written.bytes_by_calls == 4_000


def what_is_said_stays_one_event(data: bytes) -> None:
    """A journal entry has the fields it was given and no other, and a line of text is one line."""
    words = data.decode("utf-8", "surrogateescape")
    key, _, value = words.partition("=")
    event = {"event": "delivery.failed", "level": "warning", "restore_id": value, "why": words}
    wanted = journal_fields({key: value, **event, "exception": value})
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name in wanted)
    assert _decoded(encode_fields(wanted)) == {
        name: text.encode(errors="backslashreplace") for name, text in wanted.items()
    }
    assert in_one_line(event).isprintable()


def _decoded(entry: bytes) -> dict[str, bytes]:
    """As systemd reads it: NAME=value, or NAME, a length in eight bytes, and so many bytes."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value
        entry = rest
    return fields


def the_manager_may_say_anything(data: bytes) -> None:
    """What the service manager has put into the environment."""
    words = [os.fsdecode(word.replace(b"\0", b"")) for word in data.split(b"\n")]
    environ = dict(word.split("=", 1) for word in words if "=" in word)
    notifier = Notifier.from_environment(environ, 7)
    assert notifier.watchdog_interval is None or notifier.watchdog_interval > 0
    if not environ.get("LISTEN_FDS", "").isdecimal():  # those that there are belong to somebody else here
        with suppress(ConfigurationError):
            assert inherited_sockets(environ, 7) == []


class Folder:
    """A folder that is made anew for each input."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._secret = directory / "secret"
        self._secret.touch(mode=0o600)

    def a_secret_is_one_line_or_refused(self, data: bytes) -> None:
        """What is read can stand in a header, and a sentence about what cannot quotes nothing of it."""
        self._secret.write_bytes(data)
        try:
            secret = read_secret(self._secret)
        except SignInError as problem:
            sentence = str(problem)
            assert sentence.startswith(str(self._secret))
            assert len(sentence) < 300
        else:
            assert secret == data.decode("latin-1").strip()
            assert secret.isprintable()
            assert 0 < len(secret) <= MAX_SECRET_BYTES

    def files_with_any_names_are_counted(self, data: bytes) -> None:
        """Each file once, folders not, and links are not followed."""
        target = self._directory / "target"
        shutil.rmtree(os.fsencode(target), ignore_errors=True)
        target.mkdir()
        names = {name[:250] for name in re.split(rb"[\0/\n]", data)[:20]} - {b"", b".", b".."}
        for number, name in enumerate(sorted(names)):
            path = os.path.join(os.fsencode(target), name)  # noqa: PTH118 - bytes
            if number % 5 == 4:
                os.symlink(b".." if number % 2 else name, path)  # noqa: PTH211 - bytes
            else:
                with open(path, "wb") as file:  # noqa: PTH123 - bytes
                    file.write(b"12345")
        with suppress(ConfigurationError):
            checked_target(os.fsdecode(data))
        walk = Walk(target, 0)
        walk.run()
        links = len(names) // 5
        assert (walk.files, walk.bytes, walk.unreadable_folders) == (len(names), 5 * (len(names) - links), 0)


@contextmanager
def _folder(check_of: Callable[[Folder], Check]) -> Iterator[Check]:
    with a_directory() as directory:
        yield check_of(Folder(directory))


def _names() -> Sequence[bytes]:
    return [b"restic", b"a) R 1 (b", b")", b"(((", b") S 1 1 1 1\n1 (x) Z 2", b"sd-\xff\xfe", b"a b\nc"]


def _said() -> Sequence[bytes]:
    return [
        b"why=HTTP 503: try later",
        b"message=a\nPRIORITY=0\nb",
        b"=\n",
        b"AR_X=\x1b[2J",
        b"exception=Traceback\n  File",
    ]


def _environments() -> Sequence[bytes]:
    return [
        b"WATCHDOG_USEC=30000000\nWATCHDOG_PID=7\nNOTIFY_SOCKET=@x",
        b"LISTEN_PID=7\nLISTEN_FDS=x\nLISTEN_FDNAMES=a",
    ]


TARGETS = [
    Target(
        "process-names",
        ("processes.py", "engines/running/process_tree.py", "engines/running/io_counters.py"),
        _names,
        lambda: nullcontext(a_process_may_have_any_name),
    ),
    Target(
        "journal-fields",
        ("log_journal.py", "log_lines.py"),
        _said,
        lambda: nullcontext(what_is_said_stays_one_event),
    ),
    Target(
        "manager", ("daemon/notify.py",), _environments, lambda: nullcontext(the_manager_may_say_anything)
    ),
    Target(
        "secret-files",
        ("control_plane/secret_file.py",),
        lambda: [b"abc\n", b"a b", b"", b"\xff"],
        partial(_folder, lambda folder: folder.a_secret_is_one_line_or_refused),
    ),
    Target(
        "target-names",
        ("engines/running/target_folder.py",),
        lambda: [b"a/b/c\nd", *_names()],
        partial(_folder, lambda folder: folder.files_with_any_names_are_counted),
    ),
]
