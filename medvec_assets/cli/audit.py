"""`medvec audit ...`: the commands of whoever must prove something.

Belongs here: the sub-app. Does not belong here: its commands (audit_lineage).
"""

from __future__ import annotations

import typer

from medvec_assets.cli.shared import app

audit_app = typer.Typer(no_args_is_help=True, help="Prove where answers come from, and that the proof stands.")
app.add_typer(audit_app, name="audit")
