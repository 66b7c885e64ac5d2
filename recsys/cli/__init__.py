"""The ``recsys`` command, which puts all packages together and alone may import serving.

Commands import torch and serving inside their functions, so that ``recsys --help`` is quick.
"""
