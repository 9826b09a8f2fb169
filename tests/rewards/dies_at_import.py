"""A module that takes its importer down."""

import os

os._exit(7)
