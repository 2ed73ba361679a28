"""The event loop: virtual time as in the first simulation, and with it connections and threads.

aiohttp's client makes a real socket, which is never connected: `sock_connect` goes to the made-up network, and the
socket stays what tells whether it was closed.
"""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import PROCESS, VirtualLoop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.wire.network import Listener, Network


class WireLoop(VirtualLoop):
    """Virtual time, with a network and threads."""

    network: Network

    def __init__(self) -> None:
        super().__init__()
        self._world = contextvars.copy_context()

    def later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        """Call it later, outside of all processes."""
        self.call_later(delay, call, *args, context=self._world)

    # What aiohttp asks of a loop.

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self.network.connect(sock, address)

    async def create_connection(  # type: ignore[override]  # only what aiohttp asks for
        self, protocol_factory: Callable[[], Any], *, sock: socket.socket, **_: object
    ) -> tuple[Any, Any]:
        return self.network.attach(sock, protocol_factory())

    async def create_server(  # type: ignore[override]  # only what aiohttp asks for
        self, protocol_factory: Callable[[], Any], host: str, port: int, **_: object
    ) -> Listener:
        return self.network.listen(protocol_factory, host, port)

    # Threads.

    def start_thread(self, delay: float, name: str, target: Callable[[], object]) -> None:
        """Run `target` in a real thread, some time later; nothing else happens while it runs."""
        context = contextvars.copy_context()
        process = context.get(PROCESS)

        def run() -> None:
            thread = threading.Thread(name=name, target=context.copy().run, args=(target,))
            thread.start()
            thread.join()

        self.call_later(delay, run, context=self._world if process is None else context)
