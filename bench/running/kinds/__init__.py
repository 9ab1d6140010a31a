"""The kinds of backbones: how runs of each are checked, identified and scored."""
