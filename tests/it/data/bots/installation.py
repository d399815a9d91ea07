"""Sets up the tests' Bots, and reads what it has noted.

Usage: installation.py make CHANNELS    a new database: CHANNELS is JSON, a list of mappings of what Bots'
                                form for a channel asks for; a route passes the files of each
                                incoming one on to the outgoing one that follows it
       installation.py report           JSON: what went wrong, and which file became which

The directory above 'config' is the first one of PYTHONPATH.
"""

import json
import os
import sys

import bots
from bots import botsinit

botsinit.generalinit("config")

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

# After Django is set up, and not before.
from bots import models  # noqa: E402

DONE = 3  # of 'statust'; 1 is an error
EXTERN_IN, EXTERN_OUT = 200, 520  # of 'status': a file was read, was written


def make(channels):
    call_command("migrate", run_syncdb=True, verbosity=0)
    # Four tables need defaults that Django does not make.
    for name in ("ta.sqlite3", "mutex.sqlite3", "persist.sqlite3", "uniek"):
        path = os.path.join(os.path.dirname(bots.__file__), "sql", name + ".sql")
        with open(path) as file:
            connection.connection.executescript(file.read())
    made = [models.channel.objects.create(type="file", **channel) for channel in channels]
    for incoming, outgoing in zip(made[::2], made[1::2]):
        models.routes.objects.create(
            idroute=incoming.idchannel,
            active=True,
            fromchannel=incoming,
            fromeditype="raw",  # keeps each byte; 'x12' and 'edifact' would split interchanges
            frommessagetype="raw",
            translateind=2,  # pass-through
            tochannel=outgoing,
        )


def report():
    files = models.filereport.objects.order_by("idta")
    runs = models.report.objects.all()
    steps = models.ta.objects.order_by("idta")
    return {
        "errors": [
            text
            for text in [file.errortext for file in files] + [step.errortext for step in steps]
            if text
        ],
        "received": sum(run.lastreceived for run in runs),
        "sent": sum(run.send for run in runs),
        "failed": sum(run.lasterror + run.processerrors for run in runs),
        "not_done": [file.infilename for file in files if file.statust != DONE],
        "files": [[file.infilename, file.outfilename] for file in files],
        "read": [step.filename for step in steps if step.status == EXTERN_IN],
        "written": [step.filename for step in steps if step.status == EXTERN_OUT],
    }


if sys.argv[1] == "make":
    make(json.loads(sys.argv[2]))
else:
    print(json.dumps(report()))
