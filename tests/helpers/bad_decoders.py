"""A `prepare` that does to its process what bad photos do to decoders; the photo's width says what."""

import ctypes
import os
import signal
import time

from tests.helpers.shrink import shrink

CRASHES = {201: "segfault", 202: "abort", 203: "kill"}
SPINS, SLEEPS = 204, 205
KILLS_RUN = 206


def prepare(image):
    match image.width:
        case 201:
            ctypes.string_at(0)
        case 202:
            os.abort()
        case 203:
            os.kill(os.getpid(), signal.SIGKILL)
        case 204:
            while True:
                pass
        case 205:
            time.sleep(3600)
        case 206:
            os.kill(int(os.environ["TEST_PARENT"]), signal.SIGKILL)
            time.sleep(3600)
    return shrink(image)


def crash():
    ctypes.string_at(0)


def sleep():
    time.sleep(3600)


def process():
    return os.getpid()
