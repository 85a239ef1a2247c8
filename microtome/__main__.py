"""`python -m microtome`: the command line, where it is installed."""

from importlib import import_module

if __name__ == "__main__":
    import_module("flows.cli").main()
