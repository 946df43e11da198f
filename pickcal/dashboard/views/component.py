"""Components with JavaScript of their own, as plain modules that browsers take as they are."""

from __future__ import annotations

import hashlib
from typing import Any

from panel.custom import JSComponent


class Component(JSComponent):  # type: ignore[misc]
    """A component whose `_esm` is JavaScript that needs no compiler.

    Panel 1.9 compiles every module in the browser, which takes 270 ms of the first paint; what is marked as a bundle is
    taken as it is.
    """

    def _get_properties(self, doc: Any) -> dict[str, Any]:
        properties: dict[str, Any] = super()._get_properties(doc)
        properties["bundle"] = hashlib.sha256(properties["esm"].encode()).hexdigest()
        return properties
