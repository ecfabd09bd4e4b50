"""Make a trained CNN small and fast where it will run, and prove it.

Importing this package costs nothing: take what you need from its modules
(`compress.checkpoint`, `compress.build`, `compress.pipeline`, ...).
"""

__version__ = "0.1.0"
