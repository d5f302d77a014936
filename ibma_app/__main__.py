"""``python -m ibma_app`` is ``ibma-app``."""

from ibma_app.cli import main

raise SystemExit(main())
