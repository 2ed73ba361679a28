from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent_reporter import logs
from agent_reporter.control_plane.secret_file import MAX_SECRET_BYTES, read_secret
from agent_reporter.errors import SignInError
from tests.builders import needs_root, python


def secret_in(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b" \ts3cret\r\n\n"])
def test_a_secret_is_the_one_line_of_its_file(tmp_path: Path, content: bytes) -> None:
    assert read_secret(secret_in(tmp_path, content)) == "s3cret"


def test_a_secret_is_kept_out_of_events_from_then_on(tmp_path: Path) -> None:
    read_secret(secret_in(tmp_path, b"s3cret"))
    assert logs.redact("the token s3cret") == "the token [concealed]"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640, 0o660])
def test_a_file_that_others_cannot_open_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_secret(secret_in(tmp_path, b"s3cret", mode)) == "s3cret"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o602, 0o601, 0o777])
def test_a_file_that_is_open_to_others_is_refused_with_the_way_to_close_it(tmp_path: Path, mode: int) -> None:
    path = secret_in(tmp_path, b"s3cret", mode)
    with pytest.raises(SignInError) as caught:
        read_secret(path)
    assert f"{path} is open to other users (mode {mode:04o}). Run: chmod o-rwx {path}" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_link_is_as_open_as_what_it_points_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret_in(tmp_path, b"s3cret", 0o600))
    assert read_secret(link) == "s3cret"
    secret_in(tmp_path, b"s3cret", 0o644)
    with pytest.raises(SignInError, match="open to other users"):
        read_secret(link)


UNUSABLE = {
    "empty": b"",
    "blank": b" \n\n",
    "two lines": b"s3cret\nsecond",
    "NUL": b"s3cret\0",
    "binary": bytes(range(256)),
    "UTF-8": "s3crét".encode(),
    "UTF-16": "s3cret".encode("utf-16"),
    "control": b"s3cret\x1b[0m",
    "header": b"s3cret\r\nX-Evil: 1",
    "too long": b"s" * (MAX_SECRET_BYTES + 1),
    "too long with blanks": b"s3cret" + b" " * MAX_SECRET_BYTES,
    "huge": b"s3cret" * 1_000_000,
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_line_of_printable_ascii_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = secret_in(tmp_path, content)
    with pytest.raises(SignInError) as caught:
        read_secret(path)
    assert (
        str(caught.value) == f"{path} does not hold one line of printable ASCII. Put the secret alone there."
    )
    assert caught.value.__cause__ is None
    assert logs._secrets == {}


def test_the_longest_secret_is_taken(tmp_path: Path) -> None:
    assert len(read_secret(secret_in(tmp_path, b"s" * MAX_SECRET_BYTES))) == MAX_SECRET_BYTES


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SignInError, match=f"^{tmp_path} "):
        read_secret(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "dangling link", "circular link", "below a file"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    match kind:
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "circular link":
            path.symlink_to(path)
        case "below a file":
            (tmp_path / "file").touch()
            path = tmp_path / "file" / "token"
    with pytest.raises(SignInError, match=rf"{path} cannot be read: [A-Z].*\. Put the secret there\."):
        read_secret(path)


def test_a_path_that_no_file_can_have_is_refused_like_others() -> None:
    with pytest.raises(SignInError, match="cannot be read"):
        read_secret(Path("/run/to\0ken"))


def test_a_file_that_is_no_file_does_not_keep_the_sign_in_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token", 0o600)
    script = (
        "import signal, sys, pathlib\n"
        "from agent_reporter.control_plane.secret_file import read_secret\n"
        "from agent_reporter.errors import SignInError\n"
        "signal.alarm(3)\n"
        "try:\n"
        "    read_secret(pathlib.Path(sys.argv[1]))\n"
        "except SignInError:\n"
        "    print('refused')\n"
    )
    assert python(script, tmp_path / "token").stdout == "refused\n", "it waited for somebody to write"


def test_the_file_that_is_read_is_the_file_whose_mode_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_in(tmp_path, b"s3cret", 0o644)
    real_open, real_os_open = Path.open, os.open

    def rotate() -> None:
        (tmp_path / "new").write_bytes(b"another")
        (tmp_path / "new").chmod(0o600)
        (tmp_path / "new").replace(path)

    def open_and_rotate(self: Path, *arguments: Any, **options: Any) -> Any:
        file = real_open(self, *arguments, **options)
        if self == path:
            monkeypatch.undo()
            rotate()
        return file

    def os_open_and_rotate(name: Any, *arguments: Any, **options: Any) -> int:
        descriptor = real_os_open(name, *arguments, **options)
        if str(name) == str(path):
            monkeypatch.undo()
            rotate()
        return descriptor

    monkeypatch.setattr(Path, "open", open_and_rotate)
    monkeypatch.setattr(os, "open", os_open_and_rotate)
    with pytest.raises(SignInError, match="open to other users"):
        read_secret(path)


@needs_root
def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    path = secret_in(tmp_path, b"s3cret")
    script = (
        "import os, sys, pathlib\n"
        "from agent_reporter.control_plane.secret_file import read_secret\n"
        "from agent_reporter.errors import SignInError\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    read_secret(pathlib.Path(sys.argv[1]))\n"
        "except SignInError as problem:\n"
        "    print(problem)\n"
    )
    assert python(script, path).stdout == f"{path} cannot be read: Permission denied. Put the secret there.\n"
