"""What the method does in the drawn world, measured on people that nothing was trained on: ``python devtools/evidence``.

Who is asked for (``asked``), the pictures (``making``), what the judges say (``judging``), sheets to look at (``sheets``) and
the page with all of it (``page``). Held-out people and noise are the first ones there are; nothing is picked.
"""
