"""Measures the library; each module is a program that prints a table."""
