"""Python reads this first. Bots copies at leisure: each file lies half written for a moment."""

import shutil
import time


def copy_with_a_pause(source, target, length=0):
    content = source.read()
    target.write(content[: len(content) // 2])
    target.flush()
    time.sleep(0.1)
    target.write(content[len(content) // 2 :])


shutil.copyfileobj = copy_with_a_pause
