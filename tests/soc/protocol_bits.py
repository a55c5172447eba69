"""pyserial's handler of ``bits://HOST:PORT?control=PORT``: a simulated UART whose client end has a rate, see
soc/sim/uart_bits.c."""
import socket
from urllib.parse import parse_qs, urlsplit

from serial.urlhandler import protocol_socket

TIMEOUT_S = 60.0        #: what was written leaves at the old rate first


class Serial(protocol_socket.Serial):
    """As pyserial's sockets, but its baudrate is that of the simulated USB bridge."""

    _bridge_rate = None     # what it was set to

    def from_url(self, url):
        parts = urlsplit(url)
        self._control = parts.hostname, int(parse_qs(parts.query)["control"][0])
        return parts.hostname, parts.port

    def _reconfigure_port(self):    # whatever has changed
        if self._baudrate == self._bridge_rate:
            return
        with socket.create_connection(self._control, TIMEOUT_S) as control:
            line = b"%d\n" % self._baudrate
            control.sendall(line)
            answer = control.makefile("rb").readline()
        if answer != line:
            raise ValueError(f"rate of the simulated bridge is {answer!r}, not {line!r}")
        self._bridge_rate = self._baudrate
