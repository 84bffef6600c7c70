// How tests/interop.rs talks to its js children: a JSON object per line. A request has an `id`, which its answer repeats;
// what has no `id` is an event. The child ends with its stdin, so that none outlives a test that was killed.
const { createInterface } = require('node:readline')

const send = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const serve = (calls) => {
  const answer = async ({ id, call, ...args }) => {
    try {
      const ok = await calls[call](args)
      send({ id, ok: ok ?? null })
    } catch (error) {
      send({ id, error: String(error?.stack ?? error) })
    }
  }
  const lines = createInterface({ input: process.stdin })
  lines.on('line', (line) => { answer(JSON.parse(line)) })
  lines.on('close', () => process.exit(0))
}

const hex = (bytes) => Buffer.from(bytes.subarray()).toString('hex')
const unhex = (text) => new Uint8Array(Buffer.from(text, 'hex'))

module.exports = { send, serve, hex, unhex }
