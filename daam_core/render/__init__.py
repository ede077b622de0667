"""Heat maps as pictures: overlays, captions, contact sheets, tables, animations and videos, all uint8 `[H, W, 3]`.

Needs NumPy, OpenCV and Pillow only; maps may be arrays or tensors.
"""

from .animation import animate, step_frames
from .caption import colour_bar
from .colormaps import ColourMap, apply_colormap, colour_table, oklab_to_srgb, srgb_to_oklab
from .film_sheet import film_sheet
from .from_maps import notebook_html, report_table, word_matrix_table, word_overlay, word_sheet, word_video
from .overlay import Background, Enlarge, Picture, as_heat, as_picture, enlarged, outline
from .sheets import caption_background, contact_sheet, difference, overlay
from .tables import table
from .text import THEMES, Theme
from .video import has_pyav, video_frames, write_video
from .word_matrix import word_matrix

__all__ = [
    "THEMES",
    "ColourMap",
    "Enlarge",
    "Background",
    "Picture",
    "Theme",
    "animate",
    "as_heat",
    "as_picture",
    "caption_background",
    "colour_bar",
    "colour_table",
    "contact_sheet",
    "difference",
    "enlarged",
    "notebook_html",
    "oklab_to_srgb",
    "outline",
    "overlay",
    "apply_colormap",
    "report_table",
    "srgb_to_oklab",
    "step_frames",
    "table",
    "film_sheet",
    "has_pyav",
    "video_frames",
    "word_matrix",
    "word_matrix_table",
    "word_overlay",
    "word_sheet",
    "word_video",
    "write_video",
]
