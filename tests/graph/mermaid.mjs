// Gives charts to Mermaid's own parser: node tests/graph/mermaid.mjs NODE_MODULES DIRECTORY
//
// Each `.mmd` in the directory must parse. Where a `.json` of the same name lies beside it, the
// places and the rules that it lists must be what the parser has read, in this order.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, directory] = process.argv.slice(2);
const load = async (path) => import(pathToFileURL(resolve(modules, path)));

// Mermaid cleans labels for a browser's page. Here is none, and what is asked is what it reads.
const { default: purify } = await load('dompurify/dist/purify.es.mjs');
purify.sanitize ??= (text) => text;
purify.addHook ??= () => {};
const { default: mermaid } = await load('mermaid/dist/mermaid.core.mjs');

// What Mermaid keeps an entity as until it draws, and the blanks that HTML would drop.
const decoded = (label) =>
  label.replace(/ﬂ°°(\d+)¶ß/g, (_, code) => String.fromCodePoint(Number(code))).replaceAll('\u00a0', ' ');

const charts = readdirSync(directory).filter((name) => name.endsWith('.mmd'));
assert.ok(charts.length > 0, `no charts in ${directory}: 'cargo test --test it graph::' writes them`);
let compared = 0;
for (const name of charts) {
  const text = readFileSync(join(directory, name), 'utf8');
  try {
    await mermaid.parse(text);
    const facts = join(directory, name.replace(/mmd$/, 'json'));
    if (!existsSync(facts)) continue;
    const expected = JSON.parse(readFileSync(facts, 'utf8'));
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    const places = [...db.getVertices().values()].filter(({ id }) => id.startsWith('p'));
    const arrows = db.getEdges().filter(({ stroke }) => stroke === 'normal');
    assert.deepEqual(places.map(({ text: label }) => decoded(label)), expected.places);
    const rules = arrows.map(({ start, end, text: label }) => {
      const lines = label.split('<br>').map(decoded);
      return { rule: lines[0], pattern: lines[1], from: start, to: end };
    });
    assert.deepEqual(rules, expected.rules);
    compared += 1;
  } catch (error) {
    console.error(`${name}: ${error.message}\n${text}`);
    process.exitCode = 1;
  }
}
const version = JSON.parse(readFileSync(join(modules, 'mermaid/package.json'), 'utf8')).version;
console.log(`mermaid ${version} took ${charts.length} charts, ${compared} of them compared name by name`);
