"""DynamicID without a host: people from one photo each, put into a generated picture.

The data flows one way, and imports follow it::

    file -> checkpoint -> face -> tokens -> motion edit -> cast (regions) -> attention -> host

Start with :mod:`dynamicid_core.types`, which holds the shape legend.
"""

__version__ = "0.1.0"  # as in pyproject.toml; checkpoints trained here carry it
