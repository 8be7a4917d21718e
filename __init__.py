"""DynamicID for ComfyUI: the host's entry point, nothing else."""

if __package__:  # a test runner may import this file without its package
    from .nodes import NODE_CLASS_MAPPINGS, WEB_DIRECTORY, comfy_entrypoint  # noqa: F401

    if NODE_CLASS_MAPPINGS is None:
        del NODE_CLASS_MAPPINGS  # the host ignores comfy_entrypoint where this name exists
