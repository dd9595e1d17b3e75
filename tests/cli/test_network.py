"""With what is here, not one connection is made, and no name is looked up."""

import json

import pytest

from llmad.registry import registry

FORBIDDEN = """
import json, os, socket, sys
def forbidden(*arguments, **options):
    print("network:", arguments, file=sys.stderr)
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = forbidden
from llmad_cli.app import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["llmad", *words]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
OPEN = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}


def test_with_local_paths_nothing_is_connected(python, folder, place):
    quick = ["--set", "max_steps=2", "--set", "per_device_train_batch_size=2", "--set", "do_eval=false"]
    rows = registry().task("arithmetic").rows("train", 6, 0)
    (place / "rows.json").write_text(json.dumps(rows))
    words = [
        ["train", "--backbone", folder, "--task", "arithmetic", "--data", "rows.json", "--output", "run", *quick],
        ["evaluate", "run", "--limit", "1"],
        ["inspect", folder, "--adapter", "lora"],
        ["merge", "run", "--output", "merged"],
    ]
    python(FORBIDDEN, json.dumps(words), **OPEN)
    assert (place / "merged" / "model.safetensors").is_file()


def test_a_hub_id_is_the_twin_that_connects(python, place):
    with pytest.raises(AssertionError, match="network:"):
        python(FORBIDDEN, json.dumps([["inspect", "owner/name"]]), **OPEN)
