"""DynamicID beside other nodes and packs, and for a long time, in a real ComfyUI: tried, and written to ``docs/compatibility.md``.

``models`` fills a models folder, ``hosts`` starts a ComfyUI with other packs and with ``probe`` (nodes of ours that run inside
it), ``scene`` writes graphs, ``cells`` says what is combined, ``trying`` runs a cell and judges it, ``endurance`` queues runs
until something would have to leak, ``page`` writes what was found.
"""
