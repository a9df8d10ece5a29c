"""Layouts of datasets on disk: folders of images with labels or masks, ImageNet, COCO and Cityscapes."""
