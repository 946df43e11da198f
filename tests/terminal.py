"""What programs write to a terminal."""

import os


def all_said(terminal):
    """All that was written to the pseudo-terminal whose own end is `terminal` (a descriptor), as text.

    Returns when its other end is closed everywhere. One `os.read` gives what has arrived by then, which may be a part.
    """
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()
