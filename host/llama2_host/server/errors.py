"""What a request is refused with: a status and OpenAI's error object, which names the field that is to blame."""
# Ref: OpenAI API reference, error codes

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """One refused or failed request. ``retry_after_s`` becomes the header of that name."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 retry_after_s: int | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def body(self) -> dict:
        """The JSON object."""
        return {"error": {"message": self.message, "type": TYPES.get(self.status, "server_error"), "param": self.param,
                          "code": self.code}}


def refused(param: str, message: str, code: str | None = "invalid_value") -> ApiError:
    """A 400 for the field ``param``."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)
