"""Work for processes that are started afresh; kept apart so that they come up fast."""
import os
import signal
import time

from tirnas.core import UserError
from tirnas.lock import hold


def take_turns(place, number):
    "Try to get into a place until it is free, and write down when one came and went."
    while True:
        try:
            with hold(place), open(place, "a") as file:
                file.write(f"{number} in\n")
                file.flush()
                time.sleep(0.002)
                file.write(f"{number} out\n")
                file.flush()
            return
        except UserError: time.sleep(0.001)


def die_if_even(number):
    if number % 2 == 0: os.kill(os.getpid(), signal.SIGKILL)
    return number
