"""A page-visit counter that loads and checks itself: ``python -m motorlike demo``.

`app` is the Tornado application, `site` serves it, `load` sends the requests,
`report` compares and words the figures, `command` holds it all together.
"""
