// Answers of transformers.js: node transformers_js.mjs PACKAGES MODEL REQUESTS
//
// PACKAGES is a folder with node_modules. REQUESTS is a JSON file: {"picture", "pixels", "shape",
// "tasks", "dtype", "max_new_tokens"}, where "pixels" is a file of float32 pixel_values of "shape".
// Prints JSON: the token ids of each task for these pixels, and how far the picture's own
// preprocessing by transformers.js is from them.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';

const [packages, model, file] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(`${packages}/package.json`);
const { env, AutoProcessor, Florence2ForConditionalGeneration, RawImage, Tensor } = require(
    '@huggingface/transformers',
);
env.allowRemoteModels = false;
env.localModelPath = dirname(model);
const name = basename(model);
const asked = JSON.parse(readFileSync(file, 'utf8'));
const options = { local_files_only: true, session_options: { intraOpNumThreads: 1 } };
if (asked.dtype) options.dtype = asked.dtype;
const processor = await AutoProcessor.from_pretrained(name, options);
const loaded = await Florence2ForConditionalGeneration.from_pretrained(name, options);

const bytes = readFileSync(asked.pixels);
const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const pixel_values = new Tensor('float32', pixels, asked.shape);
const image = await RawImage.read(asked.picture);
const own = (await processor.image_processor(image)).pixel_values.data;
let most = 0;
let sum = 0;
for (let i = 0; i < pixels.length; ++i) {
    const difference = Math.abs(own[i] - pixels[i]);
    most = Math.max(most, difference);
    sum += difference;
}
const ids = {};
const answers = {};
for (const task of asked.tasks) {
    const text = processor.tokenizer(processor.construct_prompts(task));
    const found = await loaded.generate({
        ...text,
        pixel_values,
        max_new_tokens: asked.max_new_tokens,
        num_beams: 1,
    });
    ids[task] = found.tolist()[0].map(Number);
    const [generated] = processor.batch_decode(found, { skip_special_tokens: false });
    answers[task] = processor.post_process_generation(generated, task, image.size)[task];
}
console.log(JSON.stringify({ ids, answers, most, mean: sum / pixels.length }));
