"""What borg's exit statuses and last words mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_reporter.engines.judgement import CONNECTION_LOST, Endings, Evidence

# Those of failures are specific with BORG_EXIT_CODES=modern alone; without, all of them are 2.
ENDINGS = Endings(
    engine="borg",
    reasons_by_status={
        13: "repository_missing",
        31: "snapshot_missing",
        50: "wrong_password",
        51: "wrong_password",
        52: "wrong_password",
        53: "wrong_password",
        60: "access_not_confirmed",
        62: "access_not_confirmed",
        73: "repository_locked",
        80: CONNECTION_LOST,
        81: CONNECTION_LOST,
        87: CONNECTION_LOST,
        90: "data_corrupted",
        92: "data_corrupted",
    },
    reasons_by_text=(
        (
            "wrong_password",
            re.compile(
                r"passphrase supplied in|maximum password retries|cannot acquire a passphrase|passcommand"
            ),
        ),
        ("access_not_confirmed", re.compile(r"repository access aborted|cache initialization aborted")),
        ("repository_locked", re.compile(r"failed to (create/)?acquire the lock .*timeout\)")),
        ("snapshot_missing", re.compile(r"(^|\n)archive .*does not exist")),
        ("repository_missing", re.compile(r"(^|\n)repository .*does not exist|is not a valid repository")),
        (
            CONNECTION_LOST,
            re.compile(r"connection closed by remote host|connection to remote host is broken"),
        ),
        (
            "data_corrupted",
            re.compile(
                r"integrity error|decompression error|inconsistency detected|object with key .*not found"
            ),
        ),
        ("usage_error", re.compile(r"(^|\n)borg[^:\n]*: error: |command error: ")),
    ),
)

_WITH_WARNINGS = frozenset({1, *range(100, 128)})
_WARNING = re.compile(r"\[Errno \d+\]|never matched\.$|: backup error$|damaged \(all-zero\)", re.MULTILINE)

_COUNTS_LIE = "The count of bytes includes what was read for files that failed."
_FILE_INCOMPLETE = (
    "A file it was writing is incomplete, and folders may be without their owners, permissions and times."
)
_FOLDERS_INCOMPLETE = (
    "It had gone through all files, but some folders may be without their owners, permissions and times."
)


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run printed, in brief."""

    errors: int
    restored_something: bool
    tells_progress: bool
    """It was asked for progress, and for JSON."""
    finished: bool
    """It said that all items are done. The permissions of folders come after that."""
    interrupted: bool
    """It said that it got a signal."""
    question: str
    """The environment variable that answers what it asked last; "" if it asked nothing."""
    message: str
    """Its last words."""
    context: str
    """Lines before and after them."""

    def evidence(self, returncode: int) -> Evidence:
        """What that says of the restore's end."""
        # A shell, or sudo, in front of borg ends with such a status, too.
        warned = self.errors > 0 or _WARNING.search(self.context) is not None
        through = self.finished if self.tells_progress else warned
        return Evidence(
            errors=self.errors,
            restored=self.restored_something if self.tells_progress else None,
            went_through=returncode in _WITH_WARNINGS and through and not self.interrupted,
            finished=self.finished if self.tells_progress else None,
            interrupted=self.interrupted,
            message=self._message(),
            context=self.context,
            counts=_COUNTS_LIE if self.tells_progress else "",
            left_behind=_FOLDERS_INCOMPLETE if self.finished else _FILE_INCOMPLETE,
        )

    def _message(self) -> str:
        if self.question and self.message.endswith("aborted"):
            return f"{self.message}: borg asked, and the answer is no unless {self.question}=yes is set."
        return self.message or ("" if self.tells_progress else self.context)
