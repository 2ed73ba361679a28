"""Makes every restore on a backup host visible, stoppable, and its outcome certain."""

__version__ = "0.1.0"
