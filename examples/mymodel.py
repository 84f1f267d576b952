"""The script that users start from: a model, torch's DataParallel, a GPU, one batch."""

import torch
from torch import nn


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(10, 1)

    def forward(self, x):
        return self.fc(x)


model = MyModel()
model = nn.DataParallel(model)
model = model.to("cuda")
input_data = torch.randn(32, 10).to("cuda")
output = model(input_data)
