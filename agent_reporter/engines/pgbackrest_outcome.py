"""What pgBackRest's exit statuses and last words mean, and what is said of them."""

from __future__ import annotations

import re

from agent_reporter.engines.error_types import OTHER, kind_of
from agent_reporter.engines.judgement import Endings

STATUS_OF_A_SIGNAL = 63
"""Whatever the signal, SIGKILL apart."""

_ERRNO = re.compile(r": \[\d+\] ([^:]+)$")

ROUNDED = "Bytes are summed from sizes that pgBackRest rounds."
LEFT_BEHIND = (
    "What it left is incomplete, and PostgreSQL does not start from it: "
    "the same command with --delta goes on from there."
)
NO_CIPHER_PASS = "Most likely the cipher pass does not fit: both copies of backup.info decrypt to noise."  # noqa: S105 - a sentence
# Without its pgBackRest, a worker finishes a file, cannot say so, and after 15 seconds restores it again.
WORKERS = "Before that, wait until none of its own processes is left: they go on with the files they are at."
NO_REPOSITORY = "There is no repository of this stanza."
NO_READABLE_INFO = "The repository's backup.info cannot be read."
NO_ROOM = "It could write a part and no more, as on a file system that is full."

ENDINGS = Endings(
    engine="pgBackRest",
    interrupted=frozenset({STATUS_OF_A_SIGNAL}),
    # 26 checksum, 95 crypto; 27 config, 30 command-required, 31 option-invalid, 32 option-invalid-value,
    # 37 option-required, 48 command-invalid, 76 tablespace-map, 78 link-map, 80 db-missing, 81 db-invalid,
    # 96 param-invalid; 38 pg-running; 40 path-not-empty; 49 host-connect; 50 lock-acquire.
    reasons_by_status={
        **dict.fromkeys((26, 95), "repository_damaged"),
        **dict.fromkeys((27, 30, 31, 32, 37, 48, 76, 78, 80, 81, 96), "usage_error"),
        38: "target_in_use",
        40: "target_not_empty",
        49: "repository_unreachable",
        50: "already_running",
    },
    reasons_by_text=(
        ("wrong_password", re.compile(r"the cipher pass does not fit")),
        ("repository_missing", re.compile(r"no repository of this stanza")),
        ("repository_unreadable", re.compile(r"backup\.info cannot be read")),
        (
            "snapshot_missing",
            re.compile(r"no backup set found|backup set \S+ is not valid|unable to find backup set"),
        ),
        (
            "repository_damaged",
            re.compile(r"raised from \S+.* protocol: (?:\S+ threw error|unable to open missing file)"),
        ),
        ("repository_unreachable", re.compile(r"process on '[^']*' terminated unexpectedly")),
        (
            "permission_denied",
            re.compile(r"permission denied|operation not permitted|without rwx permissions"),
        ),
        ("target_unusable", re.compile(r"not a directory|file exists")),
        ("target_full", re.compile(r"it could write a part and no more")),
    ),
)

# Of messages without an errno, by pgBackRest's own number.
_TYPES = {
    **dict.fromkeys((26, 29, 95, 99), "data_corrupted"),
    40: "directory_not_empty",
    53: "permission_denied",
    **dict.fromkeys((55, 73), "file_or_folder_missing"),
    64: "no_space_left",
}


def type_of(code: int, description: str) -> str:
    """The protocol's token for an error: of the errno that it names, else of pgBackRest's own number."""
    errno = _ERRNO.search(description)
    kind = kind_of(f": {errno[1]}") if errno else OTHER
    return _TYPES.get(code, OTHER.type) if kind is OTHER else kind.type
