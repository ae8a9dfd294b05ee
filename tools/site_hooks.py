"""What mkdocs.yml has done to pages on their way into the site.

Mermaid diagrams are drawn by a script that browsers would have to fetch from another host. Places that show the
pages themselves draw them; the site leaves them out, with the sentence that leads to them.
"""

from __future__ import annotations

import re

NOT_ON_THE_SITE = re.compile(r"<!-- not on the site -->.*?<!-- end of not on the site -->\n?", re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for every page."""
    return NOT_ON_THE_SITE.sub("", markdown)
