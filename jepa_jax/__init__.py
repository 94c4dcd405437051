"""Video-JEPA with auxiliary objectives, in JAX.

Letters of the shape suffixes (`z_BxKxD`) and of the jaxtyping annotations, used everywhere in this package:

    B  clips of a batch            F  frames of a clip           Y X  pixel height and width      C  colour channels
    T H W  token grid (time, height, width)                      N  tokens of a clip, T·H·W (time-major)
    K  visible (context) tokens    M  predicted (target) tokens  S  any number of tokens
    E  encoder width               L  levels (4)                 D  all levels end to end, L·E
    P  predictor width             A  heads                      G  channels of a head
"""
