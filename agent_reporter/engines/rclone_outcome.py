"""What rclone's exit statuses, counters and messages mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Outcome
from agent_reporter.engines.error_types import CORRUPTED, OTHER, ErrorKind, kind_of
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.wording import diagnostics
from agent_reporter.model.error_log import PARTIAL
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from agent_reporter.engines.adapter import EngineError, StopCause

UNDECRYPTABLE = "name_undecryptable"

ENDINGS = Endings(
    engine="rclone",
    # Not 2, which is a crash of any Go program as well; 5, 6 and 7 tell of no cause.
    reasons_by_status={
        3: "source_missing",
        4: "source_missing",
        8: "transfer_limit",
        9: "nothing_transferred",
        10: "time_limit",
    },
    reasons_by_text=(
        ("wrong_password", re.compile(r"bad password|wrong password|unable to decrypt configuration")),
        ("repository_missing", re.compile(r"didn't find section in config file|didn't find backend called")),
        (
            "source_missing",
            re.compile(r"(directory|object|file) not found|source doesn't exist"),
        ),
        ("transfer_limit", re.compile(r"max transfer limit reached")),
        ("time_limit", re.compile(r"max transfer duration reached")),
        ("target_full", re.compile(r"file too big for remaining disk space")),
        ("target_unusable", re.compile(r"is a file not a directory")),
        (
            "usage_error",
            re.compile(
                r"unknown (shorthand )?flag|unknown command|flag needs an argument|invalid argument"
                r"|needs \d+ arguments"
            ),
        ),
    ),
)

_KINDS = (
    (ErrorKind("no_space_left", 28), re.compile(r"file too big for remaining disk space")),
    (ErrorKind("file_or_folder_missing"), re.compile(r"(directory|object) not found")),
    (
        CORRUPTED,
        re.compile(
            r"failed to authenticate decrypted block|not an encrypted file|too short to be encrypted"
            r"|corrupted on transfer|unexpected EOF"
        ),
    ),
)

_COUNTS_LIE = "The count of bytes may include what was read of files that failed, each time anew."
_LEFT_INCOMPLETE = "A file it was writing may be incomplete, under its own name or one that ends in .partial."
_NOTHING = "rclone says that it transferred nothing."
_UNTOLD = "This version passes over names that it cannot decrypt, and does not say so."


def kind(message: str) -> ErrorKind:
    """The kind of the error that `message` tells of."""
    known = kind_of(message)
    if known is not OTHER:
        return known
    return next((kind for kind, pattern in _KINDS if pattern.search(message)), OTHER)


_LIMIT = re.compile(r"max transfer (limit|duration) reached")


@dataclass(slots=True)
class Printed:
    """What a run printed, in brief."""

    errors: tuple[EngineError, ...] = ()
    """Those that no attempt mended."""
    skipped: int = 0
    """Pipes, links and such that it passed over."""
    is_idle: bool | None = None
    """Whether nothing was left to do by its last counters, as at every good end; None without any."""
    transferred: bool = False
    checks: int = 0
    """Files that it compared, and found to be there already."""
    tells_undecryptable: bool = False
    """True from 1.70 on, as far as can be seen; the message is there from 1.66 on."""
    went_through: bool = False
    """The last attempt came to its end, past errors."""
    mended: str = ""
    """Which attempt succeeded where another had failed."""
    is_dry_run: bool = False
    message: str = ""
    """Its last words."""
    context: str = ""
    """Its last lines that are not of single files."""

    def evidence(self) -> Evidence:
        """What that says of the restore's end."""
        return Evidence(
            errors=len(self.errors),
            restored=self._restored(),
            went_through=self._went_through_past_errors(),
            finished=self.is_idle,
            message=self.message,
            context=self.context,
            remarks=tuple(self._remarks()),
            counts=_COUNTS_LIE,
            left_behind=_LEFT_INCOMPLETE,
        )

    def _went_through_past_errors(self) -> bool:
        hit_a_limit = _LIMIT.search(f"{self.message}\n{self.context}") is not None
        return self.went_through and any(error.path for error in self.errors) and not hit_a_limit

    def _restored(self) -> bool | None:
        """Not known, too, where the rest was there already."""
        return None if self.is_idle is None or (self.checks and not self.transferred) else self.transferred

    def why_nothing_is_restored(self) -> tuple[str, str] | None:
        """A reason and a sentence, where exit status and counters do not tell."""
        if self.is_dry_run:
            return "dry_run", "It was a dry run: nothing was restored."
        doubted = any(
            error.type == UNDECRYPTABLE or "bad password" in error.description for error in self.errors
        )
        if doubted and not self.transferred and not self.checks:
            return "wrong_password", "Nothing could be decrypted: the password may be wrong."
        return None

    def _remarks(self) -> list[str]:
        remarks = []
        if self.mended:
            remarks.append(f"{self.mended}. Bytes that failed attempts read may be counted, too.")
        if self.is_idle and not self.transferred:
            if self.checks:
                remarks.append(f"{self.checks} files were there already and were not restored again.")
            else:
                remarks += [_NOTHING] if self.tells_undecryptable else [_NOTHING, _UNTOLD]
        if self.skipped:
            remarks.append(f"{self.skipped} pipes, links or other special files were skipped.")
        return remarks


def judged(printed: Printed, returncode: int, stop: StopCause | None) -> Outcome:
    """The outcome of a run, with its errors."""
    outcome = judge(ENDINGS, printed.evidence(), returncode, stop)
    nothing = printed.why_nothing_is_restored()
    claims_some = outcome.state in {RestoreState.COMPLETED, RestoreState.COMPLETED_WITH_ERRORS}
    if nothing and (claims_some or outcome.reason == PARTIAL):
        reason, sentence = nothing
        outcome = Outcome(RestoreState.FAILED, reason, diagnostics((sentence, outcome.diagnostics)))
    return replace(outcome, errors=printed.errors)
