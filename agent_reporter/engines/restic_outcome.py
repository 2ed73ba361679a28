"""What restic's exit statuses, summary and last words mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_reporter.engines.judgement import Endings, Evidence

ENDINGS = Endings(
    engine="restic",
    reasons_by_status={10: "repository_missing", 11: "repository_locked", 12: "wrong_password"},
    reasons_by_text=(
        ("wrong_password", re.compile(r"wrong password|no key found|empty password")),
        ("repository_locked", re.compile(r"repository is already locked")),
        ("repository_missing", re.compile(r"repository does not exist|is there a repository at")),
        (
            "snapshot_missing",
            re.compile(r"no snapshot found|no matching id|failed to find snapshot|invalid id \""),
        ),
        ("target_unusable", re.compile(r"cannot create target directory")),
        (
            "usage_error",
            re.compile(
                r"unknown (shorthand )?flag|unknown command|flag needs an argument|invalid argument"
                r"|please specify|snapshot id specified"
            ),
        ),
    ),
)

_LISTED_ERRORS = re.compile(r"There were \d+ errors")
_CANCELLED = re.compile(r"context canceled")

_COUNTS_LIE = "The counts of files and bytes include files that failed."
_NO_COUNTS = "This version of restic prints no counts."
_LEFT_INCOMPLETE = "A file it was writing may have its full size and still be incomplete."
_UNVERIFIED = "The files were written, but what was to follow, such as their verification, was cut short."


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run printed, in brief."""

    errors: int
    files_restored: int
    skipped_files: int
    has_summary: bool
    speaks_json: bool
    """False for restic before 0.16, which prints no summary and no counts."""
    interrupted: bool
    """It said that it got a signal."""
    message: str
    """Its last words."""
    context: str
    """Its last plain lines on stderr."""

    def evidence(self) -> Evidence:
        """What that says of the restore's end. A summary follows errors of single files, too."""
        listed = self.has_summary and self.errors > 0
        return Evidence(
            errors=self.errors,
            restored=self.files_restored > 0 if self.speaks_json else None,
            went_through=listed or _LISTED_ERRORS.search(self.message) is not None,
            finished=self.has_summary if self.speaks_json else None,
            interrupted=self.interrupted or _CANCELLED.search(self.message) is not None,
            message=self.message,
            context=self.context,
            remarks=self._remarks(),
            counts=_COUNTS_LIE if self.speaks_json else _NO_COUNTS,
            # The summary comes before `--verify` reads the files back.
            left_behind=_UNVERIFIED if self.has_summary else _LEFT_INCOMPLETE,
        )

    def _remarks(self) -> tuple[str, ...]:
        if self.skipped_files:
            return (f"{self.skipped_files} files were there already and were not restored again.",)
        if self.has_summary and not self.files_restored:
            return ("restic found nothing to restore.",)
        return ()
