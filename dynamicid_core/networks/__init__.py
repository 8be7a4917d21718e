"""Weights and forward passes only.

Every class takes ``operations``, a namespace with ``Linear``, ``LayerNorm`` and ``Conv2d`` (default
``torch.nn``), because a host brings its own layer classes for casting and offloading. Names of
parameters are those of the published files (docs/method.md, *Checkpoints*).
"""
