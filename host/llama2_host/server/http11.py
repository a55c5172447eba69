"""uvicorn's HTTP/1.1 with limits that it has not: headers must arrive in time, and connections are counted."""
import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llama2_host.server.errors import ApiError
from llama2_host.server.reply import dump

HEADER_TIMEOUT_S = 15.0
MAX_CONNECTIONS = 512
MAX_HEADER_BYTES = 32768


class Http11(H11Protocol):
    """A connection that says nothing for ``header_timeout_s`` is closed, at its beginning and between requests."""
    header_timeout_s = HEADER_TIMEOUT_S
    max_connections = MAX_CONNECTIONS

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.max_connections:
            self._refuse(ApiError(503, "too many connections: try again later", code="too_many_connections",
                                  retry_after_s=1))
        else:
            self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._arm()

    def connection_lost(self, exc) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._arm()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(ApiError(400, f"not HTTP/1.1, or headers of more than {MAX_HEADER_BYTES} bytes",
                                  code="bad_http"))
        else:
            self.transport.close()          # in the middle of an answer

    def _refuse(self, error: ApiError) -> None:
        body = dump(error.body()).encode()
        headers = [("content-type", "application/json"), ("connection", "close"), ("content-length", str(len(body))),
                   *error.headers.items()]
        for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self) -> None:
        """The timer runs while no request is being answered; more bytes of a header do not wind it up again."""
        if self._answering:
            self._disarm()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._answering and not self.transport.is_closing():
            self.transport.close()
