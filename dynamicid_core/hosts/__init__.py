"""Adapters: one file for each host. The core never asks which host it runs in."""
