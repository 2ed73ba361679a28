"""A fleet of agents on virtual time, which the product's own decisions drive: `python -m tests.fleet`.

What is decided runs as it is in the product: `model.steps`, `model.learning`, `model.verdict`, `model.backoff`,
`model.pacing` and `takeover.after_takeover`. Only what acts, the loops that wait and send, is played here.
"""
