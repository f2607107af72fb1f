// Digits as strokes, points [x, y] from 0 to 1: for those who want to see an answer at once.

/** Points on an ellipse, from an angle to another; 0 is right, 90 is down. */
function arc(x, y, width, height, from, to) {
  return Array.from({ length: 17 }, (_, step) => {
    const angle = ((from + ((to - from) * step) / 16) * Math.PI) / 180;
    return [x + width * Math.cos(angle), y + height * Math.sin(angle)];
  });
}

export const DIGITS = [
  [arc(0.5, 0.5, 0.2, 0.31, -90, 270)],
  [[[0.42, 0.3], [0.53, 0.2], [0.51, 0.82]]],
  [[...arc(0.5, 0.34, 0.18, 0.15, -170, 40), [0.32, 0.8], [0.71, 0.79]]],
  [[...arc(0.48, 0.34, 0.17, 0.15, -150, 90), ...arc(0.48, 0.65, 0.2, 0.16, -90, 150)]],
  [[[0.36, 0.2], [0.3, 0.54], [0.7, 0.52]], [[0.62, 0.2], [0.59, 0.82]]],
  [[[0.68, 0.2], [0.39, 0.21], [0.36, 0.45], ...arc(0.47, 0.61, 0.2, 0.18, -110, 140)]],
  [[[0.6, 0.18], ...arc(0.54, 0.54, 0.23, 0.28, -130, -200), ...arc(0.5, 0.64, 0.18, 0.16, 180, 540)]],
  [[[0.3, 0.24], [0.7, 0.22], [0.45, 0.82]]],
  [[...arc(0.5, 0.35, 0.14, 0.14, 90, 450), ...arc(0.5, 0.65, 0.18, 0.16, -90, 270)]],
  [[...arc(0.49, 0.37, 0.16, 0.16, 0, -360), [0.63, 0.6], [0.57, 0.82]]],
];
