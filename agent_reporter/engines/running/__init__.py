"""Starts an engine, reads what it prints, stops it, and states what it did."""
