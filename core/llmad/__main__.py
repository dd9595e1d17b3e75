"""`python -m llmad` is the command `llmad`, for launchers that start a module."""

from importlib.metadata import entry_points

if __name__ == "__main__":
    (command,) = entry_points(group="console_scripts", name="llmad")
    command.load()()
