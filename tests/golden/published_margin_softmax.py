"""What pytorch-metric-learning 2.9.0 computes for the numbers of tests/margin_softmax/published.rs, in f64.

Not part of make_golden.py: torch is gigabytes. In an environment of Python 3.11:
    pip install torch==1.13.1 "numpy<2" pytorch-metric-learning==2.9.0 && python published_margin_softmax.py
"""

import torch
from pytorch_metric_learning import losses

ROWS, CLASSES, DIM = 10, 7, 6


def numbers(rows, seed):
    """Multiples of 1/32 in [-1.6, 1.6], which are f32."""
    own = [[((37 * i + 61 * c + 17 * i * c + seed) % 101 - 50) / 32 for c in range(DIM)] for i in range(rows)]
    return torch.tensor(own, dtype=torch.float64)


def main():
    labels = torch.tensor([3 * i % CLASSES for i in range(ROWS)])
    cases = {
        "CosFaceLoss": (losses.CosFaceLoss, {"margin": 0.375, "scale": 8}, 1),
        "ArcFaceLoss": (losses.ArcFaceLoss, {"margin": 30, "scale": 8}, 1),
        "SphereFaceLoss": (losses.SphereFaceLoss, {"margin": 4, "scale": 4}, 1),
        "SubCenterArcFaceLoss": (losses.SubCenterArcFaceLoss, {"margin": 30, "scale": 8, "sub_centers": 3}, 3),
    }
    for name, (Loss, options, centres) in cases.items():
        features = numbers(ROWS, 1)
        # SphereFace's logits have the features' norms in them.
        features = torch.nn.functional.normalize(features) if name == "SphereFaceLoss" else features
        features.requires_grad_()
        loss = Loss(num_classes=CLASSES, embedding_size=DIM, **options)
        loss.W = torch.nn.Parameter(numbers(CLASSES * centres, 2).T.contiguous())
        mean = loss(features, labels)
        mean.backward()
        print(f"{name}: loss {mean.item():.12f}")
        if name != "SphereFaceLoss":
            print(f"    gradient of the second features {[round(x, 12) for x in features.grad[1].tolist()]}")
        print(f"    gradient of the first class weights {[round(x, 12) for x in loss.W.grad[:, 0].tolist()]}")


if __name__ == "__main__":
    main()
