"""What is decided, in plain functions: no IO, no clock, no randomness, no logging, no asyncio."""
