"""Engines: how they are started and stopped, and what each of them prints."""
