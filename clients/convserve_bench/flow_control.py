"""What the server allows us to send, and the messages that wait for it to allow more.

Source: RFC 9113, sections 5.2, 6.5.2 and 6.9.
"""

from __future__ import annotations

from convserve_bench import frames


class FlowControl:
    """The windows of a connection and of its streams.

    Attributes:
        out: Where frames go that may be sent.
        frame_bytes: Largest payload of a frame that the server accepts.
    """

    def __init__(self, out: list[bytes | memoryview]) -> None:
        self.out = out
        self.frame_bytes = frames.DEFAULT_FRAME_BYTES
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        # Streams whose message is not sent to its end: what is left, and their window.
        self._held: dict[int, tuple[memoryview, int]] = {}

    def reserve(self, size: int) -> bool:
        """Returns whether a new stream may send its message at once, as one frame; counts it."""
        if size > self._window or size > self._stream_window or size > self.frame_bytes:
            return False
        self._window -= size
        return True

    def hold(self, stream: int, message: bytes) -> None:
        """Sends of the message of a new stream what is allowed, and the rest as it is."""
        self._held[stream] = (memoryview(message), self._stream_window)
        self._send()

    def forget(self, stream: int) -> None:
        """Gives up what is left of a message."""
        self._held.pop(stream, None)

    def widen(self, stream: int, more: int) -> bool:
        """Allows more bytes, for a stream or for all (0); returns False if that is too many."""
        if not stream:
            self._window += more
        elif stream in self._held:
            rest, window = self._held[stream]
            self._held[stream] = (rest, window + more)
        self._send()
        return self._window <= frames.LARGEST_WINDOW

    def resize(self, stream_window: int) -> None:
        """Sets the window that a stream begins with, which counts for those begun as well."""
        change = stream_window - self._stream_window
        self._stream_window = stream_window
        self._held = {
            stream: (rest, window + change) for stream, (rest, window) in self._held.items()
        }
        self._send()

    def _send(self) -> None:
        """Sends of the messages that wait what the windows allow, the oldest first."""
        for stream, (rest, window) in [*self._held.items()]:
            while rest and (part := min(len(rest), window, self._window, self.frame_bytes)) > 0:
                flags = frames.END_STREAM if part == len(rest) else 0
                lead = frames.lead(frames.DATA, flags, part)
                self.out += (lead, stream.to_bytes(4, "big"), rest[:part])
                rest, window = rest[part:], window - part
                self._window -= part
            if rest:
                self._held[stream] = (rest, window)
            else:
                del self._held[stream]
