"""What a server is told when it starts."""
from dataclasses import dataclass, field
from pathlib import Path

from llama2_host.generation import Sampling

MAX_BODY_BYTES = 4 << 20
BODY_TIMEOUT_S = 30.0
SEND_TIMEOUT_S = 60.0       #: a client that takes nothing for so long is left
PING_S = 15.0               #: a stream that has nothing to say says so, for proxies between


@dataclass(frozen=True)
class Settings:
    """Defaults are those of the command."""
    model: str = "model"                            #: its name in /v1/models
    sampling: Sampling = field(default_factory=Sampling)    #: what a request leaves out
    bound: int = 32                                 #: requests that may wait for one board
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()                     #: host names beside localhost and addresses
    origins: tuple[str, ...] = ()                   #: pages of others that may use this server
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    ping_s: float = PING_S
    page: Path = Path(__file__).with_name("page")
