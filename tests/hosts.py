"""Several hosts on one machine: network namespaces that hang on one switch, each of which can be cut off."""

import os
import secrets
import subprocess
from contextlib import suppress

NETWORK = "10.213.77"


def _ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


class Hosts:
    """A switch and hosts on it; this process is on the network as well, at .254.

    Raises OSError where namespaces are not allowed.
    """

    def __init__(self, *names):
        self.key = f"pc{secrets.token_hex(2)}"
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        try:
            _ip("netns", "add", self._space("switch"))
            self._switch("link", "add", "br0", "type", "bridge")
            self._switch("link", "set", "br0", "up")
            _ip("link", "add", self.key, "type", "veth", "peer", "name", "here", "netns", self._space("switch"))
            _ip("addr", "add", f"{NETWORK}.254/24", "dev", self.key)
            _ip("link", "set", self.key, "up")
            self._switch("link", "set", "here", "master", "br0", "up")
            for name, address in self.addresses.items():
                self._add(name, address)
        except OSError:
            self.close()
            raise

    def _space(self, name):
        return f"{self.key}-{name}"

    def _switch(self, *words):
        _ip("-n", self._space("switch"), *words)

    def _add(self, name, address):
        space = self._space(name)
        _ip("netns", "add", space)
        self._switch("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
        self._switch("link", "set", name, "master", "br0", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    def on(self, name):
        """Words that go before a command that runs on a host."""
        return ("ip", "netns", "exec", self._space(name))

    def cut_off(self, name):
        """Pull a host's cable."""
        self._switch("link", "set", name, "down")

    def connect(self, name):
        """Put the cable back."""
        self._switch("link", "set", name, "up")

    def close(self):
        """Remove everything; cables go with the namespaces at their ends."""
        for name in ("switch", *self.addresses):
            with suppress(OSError):
                _ip("netns", "del", self._space(name))
        with suppress(OSError):
            _ip("link", "del", self.key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def allowed():
    """Whether this process may make hosts; if not, why."""
    if os.geteuid():
        return "network namespaces need root"
    try:
        Hosts("one").close()
    except OSError as error:
        return f"network namespaces are not allowed here ({error})"
    return None
