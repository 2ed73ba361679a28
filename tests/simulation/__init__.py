"""Everything that may go wrong, thought up by a seed, on virtual time: nothing is ever lost."""
