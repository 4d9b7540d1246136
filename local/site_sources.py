"""Makes links from the documentation to files such as `../wallets/ledger/execute.py` work on the site.

MkDocs calls this module as a hook (mkdocs.yml). The site serves a copy of each linked file as plain text.
"""

import re
from pathlib import Path
from posixpath import relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()\.\./[^)\s#]+")


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace each link to a file outside of the documentation by one to its copy below `source/`."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent

    def link_to_copy(link: re.Match[str]) -> str:
        path = (folder / link[0]).resolve()
        if not path.is_file() or path.is_relative_to(config.docs_dir):
            return link[0]
        name = path.relative_to(ROOT).as_posix()
        copy = f"source/{name}.txt"
        if copy not in files.src_uris:
            files.append(File.generated(config, copy, content=path.read_text()))
        return relpath(copy, page.file.src_uri.rpartition("/")[0] or ".")

    return LINK.sub(link_to_copy, markdown)
