"""Hooks of mkdocs.yml that change pages for the site.

Mermaid diagrams are drawn by a script that browsers would have to load from another host. GitHub draws them itself;
the site leaves them out, with the sentence that introduces them.
"""

from __future__ import annotations

import re

NOT_ON_THE_SITE = re.compile(r"<!-- not on the site -->.*?<!-- end of not on the site -->\n?", re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Remove what is not for the site; mkdocs calls this for every page."""
    return NOT_ON_THE_SITE.sub("", markdown)
