"""With what is here, not one connection is made, and no name is looked up."""

import pytest

FORBIDDEN = """
import socket, sys, os
def forbidden(*arguments, **options):
    print("network:", arguments, file=sys.stderr)
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = forbidden
sys.argv = ["llmad", *sys.argv[1:]]
from llmad_cli.app import main
main()
"""
OPEN = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}


def test_with_local_paths_nothing_is_connected(python, folder, place):
    quick = ["--set", "max_steps=2", "--set", "per_device_train_batch_size=2", "--set", "do_eval=false"]
    python(FORBIDDEN, "train", "--backbone", folder, "--output", "run", *quick, **OPEN)
    python(FORBIDDEN, "evaluate", "run", "--limit", "1", **OPEN)
    python(FORBIDDEN, "inspect", folder, "--adapter", "lora", **OPEN)
    python(FORBIDDEN, "merge", "run", "--output", "merged", **OPEN)


def test_a_hub_id_is_the_twin_that_connects(python, place):
    with pytest.raises(AssertionError, match="network:"):
        python(FORBIDDEN, "inspect", "owner/name", **OPEN)
