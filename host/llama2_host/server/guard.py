"""What every request passes first: the Host and Origin it names, the API key, and headers that keep a browser from
harm."""
import hmac
import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama2_host.server.errors import ApiError
from llama2_host.server.reply import Reply

#: What needs no key: how a balancer sees whether the server lives, and the page, which asks for the key itself.
OPEN_PATHS = ("/health", "/", "/page/")
CONTENT_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
                  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
HEADERS = {"Content-Security-Policy": CONTENT_POLICY, "X-Content-Type-Options": "nosniff",
           "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin"}


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    names : sequence of str
        Host names that requests may use beside localhost and addresses in digits. A page of a stranger's, whose name
        was made to point here (DNS rebinding), names itself.
    keys : sequence of str
        One of them is needed; none: no key is asked for.
    origins : sequence of str
        Origins whose pages may use this server (CORS is set elsewhere); others' requests are refused.
    seen : callable
        Told of every answer: path, status.
    """

    def __init__(self, app: ASGIApp, *, names: Sequence[str] = (), keys: Sequence[str] = (),
                 origins: Sequence[str] = (),
                 seen: Callable[[str, int], None] = lambda path, status: None):
        self.app, self.names = app, {name.lower() for name in names}
        self.keys, self.origins, self.seen = [key.encode() for key in keys], set(origins), seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                self.seen(scope["path"], message["status"])
            await send(message)

        try:
            self._check(scope)
        except ApiError as error:
            await Reply.error(error)(scope, receive, answer)
            return
        await self.app(scope, receive, answer)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host and not self._is_known(host):           # a browser always names one; balancers' checks need not
            raise ApiError(403, f"Host: {host[:80]!r} is not a name of this server: use its address, or start it with "
                                "--allow-host",
                           code="unknown_host")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403,
                           f"Origin: pages of {origin[:80]!r} may not use this server: start it with --cors-origin",
                           code="unknown_origin")
        path = scope["path"]
        if self.keys and scope["method"] != "OPTIONS" and not (path in OPEN_PATHS or path.startswith(OPEN_PATHS[-1])):
            self._check_key(headers)

    def _check_key(self, headers: Headers) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode()
        # Every key is compared, and in constant time.
        found = [hmac.compare_digest(given, key) for key in self.keys]
        if scheme.lower() != "bearer" or not any(found):
            raise ApiError(401, "a valid API key is needed: send Authorization: Bearer KEY", code="invalid_api_key",
                           headers={"WWW-Authenticate": "Bearer"})

    def _is_known(self, host: str) -> bool:
        try:
            name = (urlsplit("//" + host).hostname or "").rstrip(".")
            _ = urlsplit("//" + host).port          # raises if it is no number
        except ValueError:
            return False
        if name == "localhost" or name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return False
