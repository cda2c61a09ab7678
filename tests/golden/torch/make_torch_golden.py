"""Writes the torch.save files beside this script (PyTorch 2.15): every type, views, wrappings, protocols."""
import argparse
import collections
import os

import torch

here = os.path.dirname(os.path.abspath(__file__))
shared = torch.arange(12.0)
torch.save(
    {
        "f64": torch.tensor([1.5, -2.0], dtype=torch.float64),
        "f32": torch.tensor([[1.5, -2.0]]),
        "f16": torch.tensor([1.5, 65504.0], dtype=torch.float16),
        "bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "i64": torch.tensor([-2, 2**40]),
        "i32": torch.tensor([-2, 3], dtype=torch.int32),
        "i16": torch.tensor([-2, 3], dtype=torch.int16),
        "i8": torch.tensor([-2, 3], dtype=torch.int8),
        "u8": torch.tensor([2, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        "transposed": shared[:6].view(2, 3).t(),
        "every_third": shared[1::3],
        "tail": shared[8:],
        "nested": {"list": [torch.tensor([1.0]), {"x": torch.tensor([2.0])}], 5: torch.tensor([3.0])},
    },
    os.path.join(here, "types.pt"),
)
state = torch.nn.Linear(2, 1).state_dict()  # an OrderedDict with _metadata
state["weight"].copy_(torch.tensor([[1.0, 2.0]]))
state["bias"].copy_(torch.tensor([3.0]))
torch.save(
    {"model": state, "optimizer": {"state": {0: {"m": torch.zeros(2)}}}, "epoch": 7, "big": 2**80,
     "args": argparse.Namespace(lr=1e-3, device=torch.device("cpu"), dtype=torch.float32)},
    os.path.join(here, "run.pth"),
)
torch.save(collections.OrderedDict(state_dict={"w": torch.tensor([4.0])}),
           os.path.join(here, "protocol_4.bin"), pickle_protocol=4)
