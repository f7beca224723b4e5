#!/usr/bin/env node
/*
 * Verifies what a Nestgate ledger gave out. One file, no packages, Node 20 or newer: read it, then run it.
 *
 *   node verify-ledger.mjs --vkey KEY [options] FILE...
 *
 * FILE is an export (JSON lines), a proof of one entry (.tlog-proof), a signed checkpoint, or a folder whose files
 * are named by their SHA-256. docs/evidence.md says what each of them shows, and what it does not.
 *
 *   --vkey KEY          key of the ledger or of a witness, NAME+ID+KEY; may be given more than once
 *   --quorum NUMBER     how many of the witnesses with a --vkey must have signed; 0 if left out
 *   --entry FILE        bytes of the entry that a proof is about, where the proof does not bring them
 *   --checkpoint FILE   a checkpoint known from elsewhere: an export must reach it and have its root; repeatable
 *   --consistency FILE  proof between two checkpoints that are given as FILE: base64 hashes, a line each
 *   --json              print findings as JSON
 *
 * Exit code 0: all is as it was signed. 1: something is not; the first thing is named. 2: called wrongly.
 *
 * The arithmetic is RFC 6962, the forms are C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof.
 */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { closeSync, createReadStream, fstatSync, openSync, readdirSync } from 'node:fs'
import { readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

/** What is found wrong: `code` for programs, `message` for people, `where` is the line, entry or sizes. */
class Bad extends Error {
  constructor(code, message, where = {}) {
    super(message)
    Object.assign(this, { code, where })
  }
}
class Usage extends Error {}

// --- The tree (RFC 6962, section 2.1) ---

const sha256 = (...parts) => {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}
const leafHash = (bytes) => sha256(Buffer.of(0), bytes)
const nodeHash = (left, right) => sha256(Buffer.of(1), left, right)

/** The right edge of a tree: roots of its complete subtrees, the largest first; one for each bit of the size. */
class Tree {
  constructor(size = 0, hashes = []) {
    Object.assign(this, { size, hashes: [...hashes] })
  }
  append(leaf) {
    let hash = leaf
    for (let n = this.size; n % 2 === 1; n = (n - 1) / 2) hash = nodeHash(this.hashes.pop(), hash)
    this.hashes.push(hash)
    this.size += 1
  }
  root() {
    if (this.size === 0) return sha256()
    return this.hashes.reduceRight((right, left) => nodeHash(left, right))
  }
}

/** Largest power of two below n. */
const split = (n) => {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

/** Root of a tree of `size` leaves, from one leaf and its proof (RFC 6962, 2.1.1). */
function rootFromInclusion(index, size, leaf, proof) {
  if (index >= size) throw new Bad('root_differs', 'the entry is beyond the end of the tree')
  if (size === 1) {
    if (proof.length > 0) throw new Bad('root_differs', 'the proof is too long')
    return leaf
  }
  const last = proof.at(-1)
  if (last === undefined) throw new Bad('root_differs', 'the proof is too short')
  const k = split(size)
  const rest = proof.slice(0, -1)
  return index < k
    ? nodeHash(rootFromInclusion(index, k, leaf, rest), last)
    : nodeHash(last, rootFromInclusion(index - k, size - k, leaf, rest))
}

/** Roots of the old and the new tree from a consistency proof (RFC 6962, 2.1.2). */
function rootsFromConsistency(oldSize, newSize, proof, oldRoot, isWhole = true) {
  if (oldSize === newSize) {
    const hash = isWhole ? oldRoot : proof[0]
    if (proof.length !== (isWhole ? 0 : 1))
      throw new Bad('root_differs', 'the proof has the wrong length')
    return [hash, hash]
  }
  const last = proof.at(-1)
  if (last === undefined) throw new Bad('root_differs', 'the proof is too short')
  const k = split(newSize)
  const rest = proof.slice(0, -1)
  if (oldSize <= k) {
    const [older, newer] = rootsFromConsistency(oldSize, k, rest, oldRoot, isWhole)
    return [older, nodeHash(newer, last)]
  }
  const [older, newer] = rootsFromConsistency(oldSize - k, newSize - k, rest, oldRoot, false)
  return [nodeHash(last, older), nodeHash(last, newer)]
}

// --- Base64, decimals ---

const base64 = (text) => {
  const bytes = Buffer.from(String(text), 'base64')
  if (bytes.toString('base64') !== text) throw new Bad('malformed', 'base64 is malformed')
  return bytes
}
const hashOf = (text) => {
  const bytes = base64(text)
  if (bytes.length !== 32) throw new Bad('malformed', 'a hash does not have 32 bytes')
  return bytes
}
const decimal = (text) => {
  const number = /^(0|[1-9][0-9]{0,15})$/.test(text ?? '') ? Number(text) : NaN
  if (!Number.isSafeInteger(number)) throw new Bad('malformed', 'a number is malformed')
  return number
}
const isPosition = (value) => Number.isSafeInteger(value) && value >= 0

// --- Keys, signed notes, checkpoints ---

const LOG = 1
const WITNESS = 4

function readVkey(vkey) {
  const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey) ?? []
  if (encoded === undefined) throw new Usage(`not a verifier key: ${vkey}`)
  const typed = base64(encoded)
  const ours = sha256(`${name}\n`, typed).toString('hex', 0, 4)
  if (typed.length !== 33 || ![LOG, WITNESS].includes(typed[0]) || ours !== id) {
    throw new Usage(`not an Ed25519 verifier key, or not its id: ${vkey}`)
  }
  const x = typed.toString('base64url', 1)
  const key = createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } })
  return { name, id, type: typed[0], key, raw: x }
}

/** Whether a signature is right; a witness signs the time as well. */
function isSigned(key, text, signature) {
  if (key.type === LOG) return signature.length === 64 && verify(null, text, key.key, signature)
  if (signature.length !== 72) return false
  const head = `cosignature/v1\ntime ${signature.readBigUInt64BE()}\n`
  return verify(null, Buffer.concat([Buffer.from(head), text]), key.key, signature.subarray(8))
}

/** Verifies a checkpoint. Lines of unknown keys are ignored; a wrong one of a known key spoils it. */
function readCheckpoint(note, trust, needsQuorum = true) {
  const bad = (message) => new Bad('checkpoint_invalid', message)
  // eslint-disable-next-line no-control-regex -- a note has none
  if (typeof note !== 'string' || /[\x00-\x09\x0b-\x1f]/.test(note))
    throw bad('the checkpoint is not a note')
  const end = note.lastIndexOf('\n\n')
  if (end < 0 || !note.endsWith('\n')) throw bad('the checkpoint has no signatures')
  const text = note.slice(0, end + 1)
  const signers = new Set()
  for (const line of note.slice(end + 2, -1).split('\n')) {
    const [, name, encoded] = /^— ([^\s+]+) (\S+)$/.exec(line) ?? []
    if (encoded === undefined) throw bad('a signature line is malformed')
    const bytes = base64(encoded)
    const key = trust.keys.find(
      (one) => one.name === name && one.id === bytes.toString('hex', 0, 4),
    )
    if (key === undefined) continue
    if (!isSigned(key, Buffer.from(text), bytes.subarray(4)))
      throw bad(`the signature of ${name} is wrong`)
    signers.add(key)
  }
  if (signers.size === 0) throw bad('the checkpoint is not signed by a key that is trusted')
  const [origin, size, root, ...more] = text.slice(0, -1).split('\n')
  if (origin === '' || root === undefined || more.includes(''))
    throw bad('the checkpoint is malformed')
  if (![...signers].some((key) => key.type === LOG && key.name === origin)) {
    throw bad(`the checkpoint is of ${origin}, whose key is not trusted`)
  }
  if (needsQuorum && !trust.isQuorum(signers))
    throw bad('the checkpoint is not signed by enough witnesses')
  const signedBy = [...signers].map(({ name }) => name)
  return { origin, size: decimal(size), root: hashOf(root), signedBy }
}

/** The keys that the auditor trusts, and how many witnesses must have signed. */
function readTrust(vkeys, quorum) {
  const keys = vkeys.map(readVkey)
  if (!keys.some(({ type }) => type === LOG)) throw new Usage('no key of a ledger: give --vkey')
  const isWitness = (key) => key.type === WITNESS
  return { keys, isQuorum: (signers) => [...signers].filter(isWitness).length >= quorum }
}

// --- Exports ---

/** Longest line that is read, characters; one of an entry has at most a tenth of it. */
const MAX_LINE = 1024 * 1024

/** Lines in batches. A newline ends them and nothing else: texts in them may have other characters that end lines. */
async function* linesOf(file) {
  let rest = ''
  for await (const chunk of createReadStream(file, 'utf8')) {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()
    yield lines
    if (rest.length > MAX_LINE) throw new Bad('malformed', 'a line is too long')
  }
  if (rest !== '') yield [rest]
}

/** The last line, which says on which tree a range goes on; undefined where it is not there. */
function lastLine(file) {
  const opened = openSync(file)
  try {
    const { size } = fstatSync(opened)
    const tail = Buffer.alloc(Math.min(size, 1024 * 1024))
    readSync(opened, tail, 0, tail.length, size - tail.length)
    const end = JSON.parse(tail.toString().trimEnd().split('\n').at(-1))
    return end.end === true ? end : undefined
  } catch {
    return undefined
  } finally {
    closeSync(opened)
  }
}

/** The tree before entry `from`, as a signed checkpoint vouches for it. */
function treeBefore(from, end, readOwn) {
  const { before, edge } = end
  const tree = new Tree(from, (edge ?? []).map(hashOf))
  const bits = from.toString(2).replaceAll('0', '').length
  const checkpoint = readOwn(before?.checkpoint)
  if (
    tree.hashes.length !== bits ||
    checkpoint.size !== from ||
    !tree.root().equals(checkpoint.root)
  ) {
    throw new Bad('edge_differs', `the tree before entry ${from} is not the one that was signed`)
  }
  return { tree, checkpoint }
}

async function verifyExport(file, trust, known) {
  const found = { entries: 0, withBytes: 0, checkpoints: 0, signedBy: [] }
  const end = lastLine(file)
  let manifest, tree, older
  let [at, next, sound] = [0, 0, 0] // line, entry, size up to which all is as signed
  let isOver = false
  let lost // an entry that is not in its place; looked for in the rest
  const readOwn = (note, needsQuorum = true) => {
    const checkpoint = readCheckpoint(note, trust, needsQuorum)
    if (checkpoint.origin === manifest.origin) return checkpoint
    throw new Bad('checkpoint_invalid', `the checkpoint is of ${checkpoint.origin}`)
  }
  const compare = ({ size, root }) => {
    if (tree === undefined) return
    found.checkpoints += 1
    const message = `entries ${sound} to ${size - 1} are not, or not all, those that were signed`
    if (!tree.root().equals(root))
      throw new Bad('root_differs', message, { between: [sound, size] })
    sound = size
  }
  const compareKnown = () => known.filter(({ size }) => size === next).forEach(compare)
  const takeCheckpoint = (checkpoint) => {
    if (checkpoint.size !== next) {
      const message = `a checkpoint of size ${checkpoint.size} stands where entry ${next} comes next`
      const between = [sound, Math.max(checkpoint.size, next)]
      throw isOver ? new Bad('rolled_back', message) : new Bad('root_differs', message, { between })
    }
    compare(checkpoint)
    Object.assign(found, {
      root: checkpoint.root.toString('base64'),
      signedBy: checkpoint.signedBy,
    })
    return checkpoint
  }
  const begin = (line) => {
    const { origin, from, to, version, filter } = line
    if (version !== 1 || !isPosition(from) || !isPosition(to) || from > to) {
      throw new Bad('malformed', 'the first line is not that of an export')
    }
    manifest = line
    next = sound = from
    Object.assign(found, { origin, from, to }, filter === undefined ? {} : { filter })
    for (const one of known) {
      if (one.origin !== origin)
        throw new Bad('checkpoint_invalid', `the export is of ${origin}, not of ${one.origin}`)
      if (one.size > to)
        throw new Bad(
          'rolled_back',
          `a checkpoint of size ${one.size} is known, and the export ends at ${to}`,
        )
      // passed over in silence, it would seem to have been compared
      if (one.size < from)
        throw new Usage(
          `a checkpoint of size ${one.size} says nothing of an export that begins at ${from}`,
        )
    }
    if (from === 0) tree = new Tree()
    else if (end !== undefined) {
      const before = treeBefore(from, end, readOwn)
      tree = before.tree
      older = before.checkpoint
      found.checkpoints += 1
    }
    compareKnown()
  }
  const takeEntry = ({ seq, hash: text, leaf, ...more }) => {
    const { from, to } = manifest
    const where = { seq }
    if (!isPosition(seq) || Object.keys(more).length > 0) throw new Bad('malformed', 'not an entry')
    if (seq < from || seq >= to)
      throw new Bad('unexpected', `it is not of the range ${from} to ${to}`, where)
    if (seq < next) throw new Bad('doubled', 'it stands there twice', where)
    if (seq > next)
      throw new Bad('missing', `it is missing, entry ${seq} stands in its place`, { seq: next })
    const hash = hashOf(text)
    if (leaf !== undefined) {
      if (!leafHash(base64(leaf)).equals(hash))
        throw new Bad('bytes_changed', 'its bytes do not fit its hash', where)
      found.withBytes += 1
    }
    tree?.append(hash)
    next += 1
    found.entries += 1
    compareKnown()
  }
  const takeEnd = (line) => {
    isOver = true
    const { from, to } = manifest
    if (next !== to)
      throw new Bad('missing', 'it is missing, the entries end before it', { seq: next })
    if (line.count !== to - from) throw new Bad('malformed', `the count is not ${to - from}`)
    // of a last line that could not be read ahead: nothing would be compared with what was signed
    if (tree === undefined)
      throw new Bad('edge_differs', `the tree before entry ${from} is not given`)
    const newer = takeCheckpoint(readOwn(line.checkpoint))
    const proof = line.before?.consistency
    if (proof === undefined || older === undefined) return
    const roots = rootsFromConsistency(from, to, proof.map(hashOf), older.root)
    if (!roots[0].equals(older.root) || !roots[1].equals(newer.root)) {
      throw new Bad('edge_differs', 'the consistency proof is wrong')
    }
  }
  const take = (line) => {
    if (manifest === undefined) begin(line)
    else if (isOver) throw new Bad('malformed', 'something stands behind the last line')
    else if (line.seq !== undefined) takeEntry(line)
    else if (line.end === true) takeEnd(line)
    else if (line.checkpoint !== undefined) takeCheckpoint(readOwn(line.checkpoint, false))
    else throw new Bad('malformed', 'not a line of an export')
  }
  const parse = (text) => {
    try {
      return Object(JSON.parse(text))
    } catch {
      throw new Bad('malformed', 'not a line of an export')
    }
  }
  const takeText = (text) => {
    at += 1
    if (lost !== undefined) {
      if (parse(text).seq !== lost.where.seq) return
      throw new Bad('out_of_order', `it stands further down, in line ${at}`, lost.where)
    }
    try {
      take(parse(text))
    } catch (error) {
      if (!(error instanceof Bad)) throw error
      error.where = { line: at, ...error.where }
      if (error.code !== 'missing' || isOver) throw error
      lost = error
    }
  }
  try {
    for await (const lines of linesOf(file)) for (const text of lines) takeText(text)
    if (lost !== undefined) throw lost
    if (!isOver)
      throw new Bad('cut_short', 'the export ends without its last line', { line: at, seq: next })
  } catch (error) {
    if (!(error instanceof Bad)) throw error
    return { ...found, problem: problemOf(error) }
  }
  return found
}

const problemOf = ({ code, message, where }) => ({ code, detail: message, ...where })

// --- Proofs, checkpoints, folders ---

function verifyProof(file, trust, entryFile) {
  const text = readFileSync(file, 'utf8')
  const end = text.indexOf('\n\n')
  const [first, ...lines] = text.slice(0, Math.max(end, 0)).split('\n')
  if (first !== 'c2sp.org/tlog-proof@v1') throw new Bad('malformed', 'not a proof')
  const extra = lines[0]?.startsWith('extra ') ? base64(lines.shift().slice(6)) : undefined
  const seq = decimal(/^index (.*)$/.exec(lines.shift())?.[1])
  const entry = entryFile === undefined ? extra : readFileSync(entryFile)
  if (entry === undefined) throw new Usage(`${file} does not bring its entry: give --entry`)
  const { root, ...checkpoint } = readCheckpoint(text.slice(end + 2), trust)
  const proof = lines.map(hashOf)
  if (!rootFromInclusion(seq, checkpoint.size, leafHash(entry), proof).equals(root)) {
    throw new Bad('root_differs', `the entry is not number ${seq} of the log`)
  }
  return { seq, ...checkpoint, root: root.toString('base64') }
}

/** Whether the larger of two checkpoints goes on from the smaller one. */
function compareCheckpoints(read, proofFile) {
  const [older, newer, ...more] = [...read].sort((a, b) => a.size - b.size)
  if (newer === undefined || more.length > 0) {
    throw new Usage('--consistency needs exactly two checkpoints that are verified')
  }
  // the hashes alone, or as the broker answers: `old SIZE`, the hashes, an empty line, the checkpoint
  const [head] = readFileSync(proofFile, 'utf8').split('\n\n')
  const lines = head.split('\n').filter((line) => line !== '' && !line.startsWith('old '))
  const proof = lines.map(hashOf)
  const bad = new Bad('root_differs', `it does not go on from ${older.file}: not one ledger`)
  // nothing is shown about a tree without leaves
  if (older.origin !== newer.origin || older.size === 0) throw bad
  const roots = rootsFromConsistency(older.size, newer.size, proof, older.root)
  if (!roots[0].equals(older.root) || !roots[1].equals(newer.root)) throw bad
  return { with: older.file, sizes: [older.size, newer.size] }
}

/** Two checkpoints of one size must have one root. */
function forks(read) {
  const isFork = (one, { origin, size, root }) =>
    one.origin === origin && one.size === size && !one.root.equals(root)
  return read.flatMap((one, at) =>
    read.slice(at + 1).flatMap((other) => {
      const problem = {
        code: 'root_differs',
        detail: `${one.file} has another root: not one ledger`,
      }
      return isFork(one, other) ? [{ file: other.file, kind: 'consistency', problem }] : []
    }),
  )
}

async function verifyFolder(folder) {
  const names = readdirSync(folder)
    .filter((name) => /^[0-9a-f]{64}(\.|$)/.test(name))
    .sort()
  if (names.length === 0) throw new Usage(`${folder} has no file that is named by its SHA-256`)
  for (const name of names) {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(join(folder, name))) hash.update(chunk)
    if (hash.digest('hex') !== name.slice(0, 64)) {
      throw new Bad('bytes_changed', `${name} does not have the SHA-256 of its name`)
    }
  }
  return { files: names.length }
}

// --- The command ---

function kindOf(file) {
  if (statSync(file).isDirectory()) return 'files'
  const opened = openSync(file)
  const head = Buffer.alloc(4096)
  const length = readSync(opened, head, 0, head.length, 0)
  closeSync(opened)
  const text = head.toString('utf8', 0, length)
  if (text.startsWith('{') && text.includes('"ledger-export"')) return 'export'
  return text.startsWith('c2sp.org/tlog-proof') ? 'proof' : 'checkpoint'
}

async function main() {
  const one = { type: 'string' }
  const many = { ...one, multiple: true, default: [] }
  const { values, positionals } = parseArgs({
    options: {
      ...{ vkey: many, quorum: one, entry: one, checkpoint: many, consistency: one },
      json: { type: 'boolean' },
    },
    allowPositionals: true,
  })
  if (positionals.length === 0) throw new Usage('nothing to verify')
  const findings = []
  const read = []
  let trust
  const attempt = async (file, kind, work) => {
    try {
      findings.push({ file, kind, ...(await work()) })
    } catch (error) {
      if (!(error instanceof Bad)) throw error
      findings.push({ file, kind, problem: problemOf(error) })
    }
  }
  const checkpointIn = (file) => readCheckpoint(readFileSync(file, 'utf8'), trust)
  const work = {
    files: verifyFolder,
    proof: (file) => verifyProof(file, trust, values.entry),
    export: (file) => verifyExport(file, trust, values.checkpoint.map(checkpointIn)),
    checkpoint(file) {
      const checkpoint = checkpointIn(file)
      read.push({ file, ...checkpoint })
      return { ...checkpoint, root: checkpoint.root.toString('base64') }
    },
  }
  for (const file of positionals) {
    const kind = kindOf(file)
    if (kind !== 'files') trust ??= readTrust(values.vkey, decimal(values.quorum ?? '0'))
    await attempt(file, kind, () => work[kind](file))
  }
  if (values.consistency !== undefined) {
    const compare = () => compareCheckpoints(read, values.consistency)
    await attempt(values.consistency, 'consistency', compare)
  } else findings.push(...forks(read))
  for (const finding of findings) print(finding, values.json)
  return findings.some(({ problem }) => problem !== undefined) ? 1 : 0
}

/** Characters that could act on a terminal are shown as escapes: the files were written by others. */
const plain = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`)

function print({ file, kind, problem, ...rest }, asJson) {
  if (asJson) {
    const finding = { ok: problem === undefined, file, kind, ...rest, problem }
    return console.log(JSON.stringify(finding))
  }
  if (problem === undefined) {
    return console.log(plain(`${file}: verified: ${kind} ${JSON.stringify(rest)}`))
  }
  const { seq, detail, code, line } = problem
  const where = seq === undefined ? '' : `entry ${seq}: `
  const place = line === undefined ? code : `${code}, line ${line}`
  console.log(plain(`${file}: NOT VERIFIED: ${where}${detail} (${place})`))
}

main().then(
  (code) => {
    process.exitCode = code
  },
  (error) => {
    console.error(plain(`verify-ledger: ${error.message}`))
    process.exitCode = error instanceof Bad ? 1 : 2
  },
)
