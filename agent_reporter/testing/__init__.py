"""A conformance kit for adapters of engines: it runs one over recorded output, and over what is made of that.

    from agent_reporter.testing import Recording, check_adapter

    def test_my_engine_conforms() -> None:
        ok = Recording(out=b"...", err=b"...", returncode=0, state="completed")
        print(check_adapter(MyEngine(), recordings=[ok], commands=[["myengine", "restore", "x"]]))

`rules` lists what is checked, and why. The kit needs nothing but this package, so any test runner will do.
"""

from __future__ import annotations

from agent_reporter.testing.kit import Conformance, check_adapter
from agent_reporter.testing.recordings import Recording, read_recordings
from agent_reporter.testing.rules import ConformanceError, Rule

__all__ = ["Conformance", "ConformanceError", "Recording", "Rule", "check_adapter", "read_recordings"]
