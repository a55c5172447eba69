"""JSON answers, and the reading of a request's body within its limits."""
import json

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from llama2_host.server.errors import ApiError


class Reply(Response):
    """An object as JSON in UTF-8."""
    media_type = "application/json"

    def render(self, content) -> bytes:
        return dump(content).encode()

    @classmethod
    def error(cls, error: ApiError) -> "Reply":
        return cls(error.body(), error.status, headers=error.headers)


def dump(content) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


async def read_body(request: Request, *, most_bytes: int, within_s: float) -> bytes:
    """The whole body; 413 if it is longer, 408 if it takes longer."""
    too_long = ApiError(413, f"the body has more than {most_bytes} bytes: send a shorter prompt", code="body_too_large",
                        headers={"Connection": "close"})
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) > most_bytes:
        raise too_long
    body = bytearray()
    try:
        with anyio.fail_after(within_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise too_long
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {within_s:g} s: send it faster", code="body_too_slow",
                       headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Gone from None
    return bytes(body)


class Gone(Exception):
    """The client left before its answer."""
