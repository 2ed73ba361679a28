"""What kind of error a text tells of: engines print the text of an errno, seldom its number."""

from __future__ import annotations

import re
from typing import NamedTuple


class ErrorKind(NamedTuple):
    """A token of the protocol, and the errno the text names, or 0."""

    type: str
    code: int = 0


OTHER = ErrorKind("restore_error")
CORRUPTED = ErrorKind("data_corrupted")

# Linux numbers, spelled as Go and the C library spell them, in lower case.
_KINDS = {
    "operation not permitted": ErrorKind("permission_denied", 1),
    "no such file or directory": ErrorKind("file_or_folder_missing", 2),
    "input/output error": ErrorKind("input_output_error", 5),
    "permission denied": ErrorKind("permission_denied", 13),
    "device or resource busy": ErrorKind("file_busy", 16),
    "file exists": ErrorKind("file_exists", 17),
    "not a directory": ErrorKind("not_a_directory", 20),
    "is a directory": ErrorKind("is_a_directory", 21),
    "too many open files": ErrorKind("too_many_open_files", 24),
    "text file busy": ErrorKind("file_busy", 26),
    "file too large": ErrorKind("file_too_large", 27),
    "no space left on device": ErrorKind("no_space_left", 28),
    "read-only file system": ErrorKind("read_only_file_system", 30),
    "file name too long": ErrorKind("name_too_long", 36),
    "directory not empty": ErrorKind("directory_not_empty", 39),
    "too many levels of symbolic links": ErrorKind("too_many_symbolic_links", 40),
    "operation not supported": ErrorKind("not_supported", 95),
    "stale nfs file handle": ErrorKind("stale_file_handle", 116),
    "stale file handle": ErrorKind("stale_file_handle", 116),
    "disk quota exceeded": ErrorKind("quota_exceeded", 122),
}

_CORRUPTION = re.compile(
    r"ciphertext verification failed|decrypting blob|hash does not match|invalid data returned"
    r"|unexpected content in|invalid file size for|pack .{0,100} damaged",
    re.IGNORECASE,
)


def kind_of(message: str) -> ErrorKind:
    """The kind of the error that `message` tells of.

    Only what stands after the last colon names an errno: before it are paths, which may say anything.
    """
    kind = _KINDS.get(message.rpartition(": ")[2].strip().lower())
    if kind is not None:
        return kind
    return CORRUPTED if _CORRUPTION.search(message) else OTHER
