"""What every library holds from the start: the areas, the pretrained networks with their weights, the sample and the
demo brain. Plain files and the code that puts them in; nothing here computes."""

from encephalon.library.builtins.files import NETWORKS, WEIGHTS, example, packaged_weights

__all__ = ["NETWORKS", "WEIGHTS", "example", "packaged_weights"]
