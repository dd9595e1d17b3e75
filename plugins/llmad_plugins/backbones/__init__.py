"""Backbone families, one file each: rules as data."""
