"""Sphinx: the documentation site (``make docs``)."""

from badpix import __version__

project = "badpix"
author = "the badpix developers"
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"badpix {__version__}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["badpix.css"]
html_show_sphinx = False
html_show_copyright = False
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
