"""Draw docs/run.svg: what `llmad train` shows on a terminal, from a real run (a minute on two cores)."""

import io
import os
import re
import tempfile
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from llmad import recipe
from llmad.run import Event, Finished, train_adapter
from llmad_cli import console, libraries, progress

HERE = Path(__file__).parent
COMMAND = "llmad train"


def main() -> None:
    """Train in an empty folder, and keep what is shown."""
    shown = Console(file=io.StringIO(), record=True, force_terminal=True, width=112, markup=False, highlight=False)
    bars = Console(file=io.StringIO(), force_terminal=True, width=112, markup=False, highlight=False)
    console.out = progress.out = shown
    progress.err = bars
    shown.print(f"$ {COMMAND}\n", style="bold")
    libraries.ready()
    default = recipe.load([recipe.read(Path(str(files("llmad_cli") / "recipes" / "default.toml")))])
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        with progress.TrainingView() as view:

            def observe(event: Event) -> None:
                if isinstance(event, Finished):
                    shown.print(view.progress.get_renderable())
                view.observe(event)

            train_adapter(default, observe)
        os.chdir(HERE)
    fonts = r"@font-face \{.*?\}\s*"  # fetched from elsewhere; the reader's own will do
    drawn = re.sub(fonts, "", shown.export_svg(title=COMMAND), flags=re.DOTALL)
    (HERE / "run.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
