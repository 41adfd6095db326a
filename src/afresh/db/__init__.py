"""Databases by SQLAlchemy, whose data the graph can depend on.

What is read and written is told by `afresh.db.tracking`; it needs the extra `db`, that is
SQLAlchemy 2.
"""
