"""The commands, one file each; `main` finds the one that is asked for and imports no other."""
