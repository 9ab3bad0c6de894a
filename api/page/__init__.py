"""The page at `/`: plain HTML, CSS and JavaScript modules, served as they lie here; no build, nothing from elsewhere.

Belongs here: what a browser is given. Does not belong here: routes (routes.page), answers (they come from /v1).
It never puts what it received into HTML as text: elements are made and filled, so that a record cannot script.
"""
