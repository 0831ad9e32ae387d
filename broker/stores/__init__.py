"""What is kept between starts: the directory of organizations, teams and keys, in SQLite or PostgreSQL.

Only `opening` and what it names as free of SQLAlchemy may be imported at the start: the database driver takes a second
to load, and a broker that stores nothing must have answered by then.
"""
