// Times tokens of transformers.js: node transformers_js.mjs PACKAGES MODEL PIXELS SHAPE THREADS TOKENS
//
// PACKAGES is a folder with node_modules, PIXELS a file of float32 pixel_values of SHAPE, a JSON
// list. For every line on stdin, answers greedily with TOKENS tokens, and prints the median
// milliseconds from one token to the next.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const [packages, model, pixels, shape, threads, tokens] = process.argv.slice(2);
const require = createRequire(resolve(packages, 'package.json'));
const { env, AutoProcessor, Florence2ForConditionalGeneration, Tensor } = require(
    '@huggingface/transformers',
);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(model));
const options = {
    local_files_only: true,
    dtype: 'fp32',
    session_options: { intraOpNumThreads: Number(threads) },
};
const processor = await AutoProcessor.from_pretrained(basename(model), options);
const loaded = await Florence2ForConditionalGeneration.from_pretrained(basename(model), options);
const bytes = readFileSync(pixels);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const inputs = {
    ...processor.tokenizer(processor.construct_prompts('<OD>')),
    pixel_values: new Tensor('float32', values, JSON.parse(shape)),
    max_new_tokens: Number(tokens),
    min_new_tokens: Number(tokens),
    num_beams: 1,
};
for await (const _ of createInterface({ input: process.stdin })) {
    const times = [];
    await loaded.generate({
        ...inputs,
        streamer: { put: () => times.push(performance.now()), end: () => {} },
    });
    // The first two are those of the prompt and of the first token.
    const between = times.slice(2).map((time, i) => time - times[i + 1]);
    console.log(between.sort((a, b) => a - b)[Math.floor(between.length / 2)]);
}
