"""The search trees that the server was asked to keep, the newest ones, by an id nobody can guess."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Any

from tokenzero.selfplay.game import Game
from tokenzero.server.errors import ApiError
from tokenzero.view import page
from tokenzero.view_document import document


class Trees:
    """At most ``most`` documents, the oldest going first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._documents: OrderedDict[str, Any] = OrderedDict()

    @property
    def kept(self) -> bool:
        """Whether the server keeps trees at all."""
        return self._most > 0

    def keep(self, game: Game) -> str | None:
        """The id under which the trees of ``game`` are kept; None when it has none."""
        if not game.trees or not self.kept:
            return None
        name = secrets.token_urlsafe(12)
        self._documents[name] = document(game.trees, game.text)
        while len(self._documents) > self._most:
            self._documents.popitem(last=False)
        return name

    def page(self, name: str) -> str:
        """The HTML page of a tree. Raises ApiError 404 when it is not kept."""
        return page(self.document(name))

    def document(self, name: str) -> Any:
        """The same as a JSON object."""
        found = self._documents.get(name)
        if found is None:
            raise ApiError(404, "this tree is not kept, or no longer; ask again with search.return_tree")
        return found
