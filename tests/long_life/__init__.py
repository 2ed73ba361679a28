"""A long life: thirty days on virtual time, and some minutes of a real daemon, in which nothing grows."""
