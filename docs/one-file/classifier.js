// Labels pictures in a browser, with the file that `sharpzo-edge classifier` writes. docs/one-file.md explains it.
// Opaque pictures are cut just as Pillow and `predict` do it; where a picture is transparent, put it on white first.

const FILTERS = {
  bilinear: { reach: 1, at: (x) => 1 - x },
  bicubic: { reach: 2, at: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : -0.5 * (((x - 5) * x + 8) * x - 4)) },
};
const UNIT = 2 ** 22; // Pillow's weights are whole numbers, of which so many make 1

// ort: onnxruntime-web;  model: the file's address;  about: the JSON that `sharpzo-edge classifier --json` printed
export async function openClassifier(ort, model, about) {
  const session = await ort.InferenceSession.create(model);
  const { preprocessing, labels, none_below } = about;
  const [height, width] = preprocessing.size;
  if (preprocessing.resize_mode !== "shortest" || height !== width) {
    throw new Error("Only the middle square of a picture is cut here, and this model wants another crop.");
  }
  // picture: a Blob, such as a file that was chosen. Gives the labels with their probabilities, the likeliest first,
  // and whether the picture is likely none of them.
  return async (picture) => {
    const crop = middleOf(await levelsOf(picture), width, FILTERS[preprocessing.interpolation]);
    const pixels = new ort.Tensor("uint8", crop, [1, height, width, 3]);
    const { probabilities, largest_logit } = await session.run({ pixels });
    const answers = labels.map((label, i) => ({ label, probability: probabilities.data[i] }));
    answers.sort((a, b) => b.probability - a.probability);
    return { answers, none: none_below !== null && largest_logit.data[0] < none_below };
  };
}

// The levels of a picture, upright: {levels: RGB, a byte each, row by row, width, height}.
export async function levelsOf(picture) {
  const image = await createImageBitmap(picture, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const rgba = canvas.getImageData(0, 0, width, height).data;
  const levels = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < levels.length; j++) {
    levels[i++] = rgba[j++];
    levels[i++] = rgba[j++];
    levels[i++] = rgba[j++];
  }
  return { levels, width, height };
}

// Makes the shorter edge `size` pixels long, and cuts the middle square.
export function middleOf({ levels, width, height }, size, filter) {
  const short = Math.min(width, height);
  const newWidth = Math.floor((size * width) / short);
  const newHeight = Math.floor((size * height) / short);
  const turned = resizeRows(levels, width, height, newWidth, filter);
  const resized = resizeRows(turned, height, newWidth, newHeight, filter);
  const left = half(newWidth - size);
  const top = half(newHeight - size);
  const crop = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const start = ((top + y) * newWidth + left) * 3;
    crop.set(resized.subarray(start, start + size * 3), y * size * 3);
  }
  return crop;
}

// Resizes the rows, and makes columns of them: done twice, the picture is resized both ways, and upright again.
function resizeRows(levels, width, height, newWidth, filter) {
  const result = new Uint8Array(newWidth * height * 3);
  for (let x = 0; x < newWidth; x++) {
    const { first, weights } = weightsAt(x, width, newWidth, filter);
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < 3; c++) {
        let sum = UNIT / 2;
        for (let i = 0, at = (y * width + first) * 3 + c; i < weights.length; i++, at += 3) {
          sum += weights[i] * levels[at];
        }
        result[(x * height + y) * 3 + c] = Math.min(255, Math.max(0, Math.floor(sum / UNIT)));
      }
    }
  }
  return result;
}

// The old pixels that the new pixel x is made of: the first one, and the weight of each.
function weightsAt(x, width, newWidth, { reach, at }) {
  const scale = width / newWidth;
  const wide = Math.max(scale, 1);
  const centre = (x + 0.5) * scale;
  const first = Math.max(0, Math.floor(centre - reach * wide + 0.5));
  const end = Math.min(width, Math.floor(centre + reach * wide + 0.5));
  const weights = [];
  for (let old = first; old < end; old++) {
    const distance = Math.abs(old - centre + 0.5) * (1 / wide);
    weights.push(distance < reach ? at(distance) : 0);
  }
  const sum = weights.reduce((a, b) => a + b);
  return { first, weights: weights.map((weight) => Math.round((weight / sum) * UNIT)) };
}

// Half of a whole number; from two that are equally near, the even one.
function half(n) {
  const below = Math.floor(n / 2);
  return n % 2 === 0 ? below : below + (below % 2);
}
