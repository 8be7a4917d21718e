"""Adapters: a package for each host, which translates it into the core's words and back. The core never asks which it is."""
