"""The one command, ``recsys``: the composition root, and the only room that may import serving.

Imports of torch and of serving are inside the commands, so that ``recsys --help`` is quick.
"""
