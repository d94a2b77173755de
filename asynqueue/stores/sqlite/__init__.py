"""
A store in a file, by SQLite, which one program owns as long as it has it open.
"""
