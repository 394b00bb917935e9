"""Interfaces of other libraries, served by windeye."""
