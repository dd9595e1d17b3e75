"""`llmad` in milliseconds: a process that has imported everything, and is forked for every command."""
