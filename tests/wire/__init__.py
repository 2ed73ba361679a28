"""The seam to the network: the real client and the real reference server over a faulty wire, on virtual time.

`tests/simulation` puts a session of its own in the place of aiohttp's, so nothing below that is covered there:
connector, session, timeouts, bounds of bodies, reuse and loss of connections. Here all of it is real, on both
sides, and so are files, locks and threads. Only what the machine would do is made up: time, the bytes on the way,
names that are looked up, who this process is, and chance.

Why the loop is our own. async-solipsism refuses `call_soon_threadsafe` from other threads, by which all the
product's threads come back; it replaces how aiohttp connects; it has no delay, and no connection that is reset or
half closed; and its licence is the GPL. simloom needs Python 3.12, refuses other threads as well, and resets
connections, but cuts none at a byte. `tests/simulation/loop.py` has virtual time and killed processes already; with
connections and threads it takes `loop.py` and `network.py` here. A thread is a real one: the loop waits for it before
it does anything else, so time stands still while it works, and the order is the same in every run.

TLS is left out: its handshake has randomness that no seed decides.
"""
