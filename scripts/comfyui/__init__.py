"""ComfyUI from outside: found on this machine (finding), given this pack (folders), started (serving), and spoken to
(speaking). The one place that knows how; scripts, devtools and tests use it.

Standard library only, except that following a graph needs aiohttp, which ComfyUI's own Python has. What goes wrong is a
``SetupError`` with one sentence for the user.
"""
