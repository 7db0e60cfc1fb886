import sys


def hook(kind, value, trace):
    print('hook', value)
    sys.excepthook = sys.__excepthook__
    for name in ('last_type', 'last_value', 'last_traceback'):
        delattr(sys, name)


sys.excepthook = hook
raise ValueError(1)
