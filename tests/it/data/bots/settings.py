"""Django's settings of the tests' Bots: its own, but the database lies in 'botssys' beside us."""

import os

from bots.config.settings import *  # noqa: F403

DATABASES["default"]["NAME"] = os.path.join(  # noqa: F405
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "botssys", "botsdb"
)
