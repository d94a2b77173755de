"""
All that there is to say is said in setup.cfg.
"""

from setuptools import setup

setup()
