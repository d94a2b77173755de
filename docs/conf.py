"""
How Sphinx builds the manual. The pages of the API are made by pydoctor.
"""

from configparser import ConfigParser
from pathlib import Path

_cfg = ConfigParser()
_cfg.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")

project = "AsynQueue"
author = "AsynQueue maintainers"
copyright = "2026, AsynQueue maintainers"
release = version = _cfg["metadata"]["version"]

extensions: list[str] = []
exclude_patterns = ["_build"]
highlight_language = "text"
nitpicky = True

html_theme = "furo"
html_title = f"AsynQueue {release}"
html_copy_source = False
html_show_sphinx = False
