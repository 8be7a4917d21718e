"""Training: what is set, the cache of what frozen networks say of the photos, batches from it, and the two stages.

A dataset (``datasets``) and a base model become a checkpoint in two stages, anchoring and reconfiguration
(docs/method.md, section 4). Nothing frozen but the UNet runs in their loops: ``cache`` holds the rest.
"""
