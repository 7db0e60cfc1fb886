"""Python as a guest. componentize-py imports this file while the component is built and keeps the interpreter as it
then stands; each run begins there, with everything imported that a program may import."""

import os
import sys
import types

# A guest has no files: what is not imported now cannot be imported later.
import abc, argparse, array, ast, base64, binascii, bisect, calendar, cmath, codecs, collections, collections.abc
import colorsys, contextlib, contextvars, copy, csv, dataclasses, datetime, decimal, difflib, dis, enum, errno
import fileinput, fnmatch, fractions, functools, gc, getopt, hashlib, heapq, hmac, html, inspect, io, itertools
import json, keyword, linecache, locale, logging, math, numbers, operator, pickle, platform, pprint, queue, random
import re, reprlib, sched, secrets, shlex, signal, stat, statistics, string, struct, subprocess, textwrap, threading
import time, timeit, token, tokenize, traceback, typing, unicodedata, unittest, uuid, warnings, weakref, zlib

# What those import only when it is needed.
import __future__, _strptime, encodings.idna, encodings.latin_1, encodings.utf_16, encodings.utf_32, graphlib, ipaddress

ARGUMENTS = ["/box/main.py"]


class Inline(threading.Thread):
    """There are no threads. One that is only started to have a larger stack runs at once instead."""

    def start(self):
        self.run()

    def join(self, timeout=None):
        pass

    def is_alive(self):
        return False


threading.Thread = Inline
threading.stack_size = lambda size=0: 0


def status(code):
    """What `sys.exit(code)` means to the shell."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def told(error):
    """Prints a traceback that begins in the program."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.excepthook(type(error), error, trace)


def close():
    """Status 120, as Python's own, where the last output cannot be written."""
    try:
        sys.stdout.flush()
        return 0
    except ValueError:  # the program closed it
        return 0
    except Exception:
        return 120


class WitWorld:
    def run(self, source: str) -> int:
        sys.argv = ARGUMENTS
        sys.setrecursionlimit(1000)
        random.seed()
        module = types.ModuleType("__main__")
        module.__file__ = ARGUMENTS[0]
        module.__builtins__ = __builtins__
        sys.modules["__main__"] = module
        linecache.cache[ARGUMENTS[0]] = (len(source), None, source.splitlines(True), ARGUMENTS[0])
        result = 0
        try:
            # As bytes, so that a byte order mark and a declared encoding count as in a file.
            exec(compile(source.encode(), ARGUMENTS[0], "exec", dont_inherit=True), module.__dict__)
        except SystemExit as leaving:
            result = status(leaving.code)
        except BaseException as error:
            told(error)
            result = 1
        import atexit

        atexit._run_exitfuncs()
        return close() or result
