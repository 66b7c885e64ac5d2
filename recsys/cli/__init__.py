"""The command ``recsys``, which may import every other package, serving included.

Commands import torch and serving when they run, so that ``recsys --help`` is fast.
"""
