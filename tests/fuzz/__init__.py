"""Hostile input: everything that reads bytes from outside, fed with what it should never get."""
