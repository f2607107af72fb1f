"""What decoding a picture file will cost, by its header: for fair shares of time and limits.

The figures were measured with libjpeg-turbo 3.1 and Pillow 13 on one core of 2020, and hold within
a factor of three; what counts is that a file of a hundred bytes may cost ten thousand times as much
as another.
"""

from convserve_imaging import gif, jpeg, png, webp

#: Seconds for any file, however small.
_LEAST_S = 30e-6

#: Seconds for a pixel in each scan, and for a byte: Huffman's codes, and arithmetic ones.
_HUFFMAN_S = (1e-9, 15e-9)
_ARITHMETIC_S = (5e-9, 200e-9)

#: Seconds for a byte of the decoded picture, and of the file.
_PNG_S = (8e-9, 5e-9)

#: Seconds for a pixel, and for a byte of the file.
_WEBP_S = (25e-9, 15e-9)
_GIF_S = (8e-9, 5e-9)


def decoding_s(data: bytes) -> float:
    """Returns the CPU seconds that decoding a file costs at most, as far as its header tells.

    Costs microseconds itself. Where the header is damaged, nothing will be decoded.

    Args:
        data: the whole file.
    """
    if data.startswith(jpeg.SOI):
        passes, arithmetic = jpeg.passes(data)
        pixel_s, byte_s = _ARITHMETIC_S if arithmetic else _HUFFMAN_S
        return _LEAST_S + passes * pixel_s + len(data) * byte_s
    if data.startswith(png.SIGNATURE):
        decoded_s, byte_s = _PNG_S
        return _LEAST_S + png.decoded_bytes(data) * decoded_s + len(data) * byte_s
    for is_one, pixels, (pixel_s, byte_s) in (
        (webp.is_webp, webp.pixels, _WEBP_S),
        (gif.is_gif, gif.pixels, _GIF_S),
    ):
        if is_one(data):
            return _LEAST_S + pixels(data) * pixel_s + len(data) * byte_s
    return _LEAST_S
