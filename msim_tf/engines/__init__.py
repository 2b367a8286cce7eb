"""Engines that run the jobs of ``msim extract`` and ``msim embed`` on many machines; one machine needs none of this.

``work`` is what runs in a worker, the same for every engine. Each engine has a module of its own, the only one that
imports it, and is an extra of the same name.
"""
