"""
Tasks, and in which order which worker gets them.
"""
