"""
What AsynQueue costs, beside its peers: C{python -m benchmarks}.
"""
