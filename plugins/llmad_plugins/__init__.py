"""The built-in plugins: one file each, reached by entry points only, on nothing but the public API of `llmad`."""
