"""Pages and screens that follow computed values.

`afresh.ui.nicegui` is for web pages in Python (`pip install "afresh[nicegui]"`).
"""
