"""Where the programs compute, and the memory that they used there: `TOGI_PEERS_DEVICE`, cpu or cuda."""

import os, resource

import torch

device = os.environ.get("TOGI_PEERS_DEVICE", "cpu")


def wait():
    """Until what was given to a GPU is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes():
    """The peak of the resident memory; on a GPU, of what PyTorch had reserved there."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
