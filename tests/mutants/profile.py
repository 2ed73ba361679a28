"""How hypothesis works for a mutant: the same examples each time, fewer of them, and none made smaller.

Loaded as a plugin of pytest, before hypothesis reads which profile is asked for.
"""

from __future__ import annotations

from hypothesis import Phase, settings

NAME = "mutants"

settings.register_profile(
    NAME,
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
)
