// Times answers of transformers.js: node transformers_js.mjs PACKAGES MODEL DTYPE PIXELS SHAPE THREADS
//
// PACKAGES is a folder with node_modules, DTYPE a precision, PIXELS a file of float32 pixel_values of
// SHAPE, a JSON list. For every number of tokens, a line on stdin, answers greedily with as many
// tokens, and prints a line of JSON: the milliseconds of the answer, the vision encoder included, and
// the median milliseconds from one token to the next.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const [packages, model, dtype, pixels, shape, threads] = process.argv.slice(2);
const require = createRequire(resolve(packages, 'package.json'));
const { env, AutoProcessor, Florence2ForConditionalGeneration, Tensor } = require(
    '@huggingface/transformers',
);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(model));
const options = {
    local_files_only: true,
    dtype,
    session_options: { intraOpNumThreads: Number(threads) },
};
const processor = await AutoProcessor.from_pretrained(basename(model), options);
const loaded = await Florence2ForConditionalGeneration.from_pretrained(basename(model), options);
const bytes = readFileSync(pixels);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const inputs = {
    ...processor.tokenizer(processor.construct_prompts('<OD>')),
    pixel_values: new Tensor('float32', values, JSON.parse(shape)),
    num_beams: 1,
};
for await (const line of createInterface({ input: process.stdin })) {
    const times = [];
    const start = performance.now();
    await loaded.generate({
        ...inputs,
        max_new_tokens: Number(line),
        min_new_tokens: Number(line),
        streamer: { put: () => times.push(performance.now()), end: () => {} },
    });
    const answer = performance.now() - start;
    if (times.length !== Number(line) + 1) {
        throw new Error(`${times.length - 1} tokens instead of ${line}`);
    }
    // The first two are those of the prompt and of the first token.
    const between = times.slice(2).map((time, i) => time - times[i + 1]);
    const token = between.sort((a, b) => a - b)[Math.floor(between.length / 2)];
    console.log(JSON.stringify({ answer, token }));
}
