"""Docstrings as the site's Markdown: ``:class:`Learner``` becomes a link, and ``::`` before an example a colon."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


def as_markdown(text: str) -> str:
    """Returns a docstring without the two habits of reStructuredText that ours have."""
    return re.sub(r"::$", ":", ROLE.sub(r"[`\1`][\1]", text), flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
