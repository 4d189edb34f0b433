"""How `tox -e docs` renders these pages with Sphinx.

Rule: the pages must read well without it.
"""

project = "motorlike"
extensions = ["myst_parser"]
html_theme = "alabaster"
# Links such as guide.md#tls lead to headings.
myst_heading_anchors = 3
# The index lists the pages in a table, which reads well unrendered too.
suppress_warnings = ["toc.not_included"]
