"""The firmware with the fake core behind a TCP port, for trying a host without a simulator.

``python -m tests.firmware.fake_device [--port N] [--image FILE]`` prints the port; ``socket://127.0.0.1:PORT`` reaches
it. Its tokens are a toy's, but link, upload, checks, prompts and sampling are the firmware's own.
"""
import argparse
import socket
import tempfile
from pathlib import Path

from tests.firmware import library


def serve(firmware, listener: socket.socket) -> None:
    """One client after another, forever; the device lives on between them."""
    buffer = library.ctypes.create_string_buffer(4096)
    while True:
        client, _ = listener.accept()
        client.settimeout(0.001)
        with client:
            while True:
                try:
                    data = client.recv(2048)
                    if not data:
                        break
                except TimeoutError:
                    data = b""
                except ConnectionError:
                    break
                while data:
                    data = data[firmware.fake_feed(data, len(data)):]
                    firmware.device_poll()
                for _ in range(50):
                    firmware.device_poll()
                    firmware.fake_execute(64)
                while count := firmware.fake_drain(buffer, 4096):
                    try:
                        client.sendall(buffer.raw[:count])
                    except ConnectionError:
                        break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--image", type=Path, help="model image that is in DRAM at reset")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        firmware = library.load(library.build(Path(folder)), Path(folder) / "copy.so")
        library.Device(firmware, arguments.image.read_bytes() if arguments.image else b"")
        with socket.create_server(("127.0.0.1", arguments.port)) as listener:
            print(f"socket://127.0.0.1:{listener.getsockname()[1]}", flush=True)
            serve(firmware, listener)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
