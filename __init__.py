"""DAAM Lens: which pixels did each word of a prompt paint?

This file makes the folder a package for hosts that load it as one, such as ComfyUI from `custom_nodes`. The library is
`daam_core`. Nothing of a host is imported here, so pytest and every other tool can import this folder as it is.
"""
