/**
 * From what was found to the agent tag, purely. The kernel knows who holds a socket, not who wrote the bytes: a
 * verdict says how much was proved, and nothing unproved is ever filled in.
 */
import type { AgentTag, Declared, SocketFacts, Verified } from '../../shared/agent-tag.ts'
import { MAX_FIELD_LENGTH } from '../../shared/tag-constants.ts'
import type { ExeHash } from './exe-hash.ts'
import type { ProcessFacts } from './process.ts'

/**
 * How far callers are told apart: by process, or only by container, where the pod's processes cannot be seen or one of
 * them could speak on another's connection.
 */
export type IdentityLevel =
  { readonly kind: 'process' } | { readonly kind: 'container'; readonly why: string }

/** What a lookup found out about a connection. */
export type Findings =
  /** No process could be tied to the connection; `why` is a sentence for the audit. */
  | { readonly kind: 'none'; readonly why: string }
  /** The socket alone was looked at; `why` is a sentence for the audit. */
  | { readonly kind: 'container'; readonly why: string; readonly socket: SocketFacts }
  /** Several processes hold the client's socket. */
  | { readonly kind: 'several'; readonly pids: readonly number[] }
  /** One process holds it, as far as could be seen. */
  | {
      readonly kind: 'one'
      readonly process: ProcessFacts
      readonly exeHash: ExeHash
      readonly execOrdinal: number
      readonly declared: Declared
      readonly instanceId: string
      readonly bootId: string
      /** Processes that could not be searched: each may be one more holder. */
      readonly unread: number
      /** Whether it passes on what others send to it, as far as its program tells. */
      readonly relay: boolean
    }

/** Programs that pass on what others send: the process behind them is not visible here. */
const RELAYS: ReadonlySet<string> = new Set([
  'envoy',
  'haproxy',
  'linkerd2-proxy',
  'mitmdump',
  'mitmproxy',
  'mitmweb',
  'nginx',
  'pilot-agent',
  'privoxy',
  'socat',
  'squid',
  'ssh',
  'sshd',
  'tinyproxy',
  'traefik',
])

/** Whether an executable is known to pass on what others send. */
export function isRelay(exe: string): boolean {
  return RELAYS.has(baseName(exe))
}

/** The last segment of an executable's path, without the kernel's mark of a deleted file. */
export function baseName(exe: string): string {
  return exe.slice(exe.lastIndexOf('/') + 1).replace(/ \(deleted\)$/, '')
}

/** The tag of a caller. Only the verdict `exclusive` comes without a reason. */
export function judge(findings: Findings): AgentTag {
  switch (findings.kind) {
    case 'none':
      return { verdict: 'unidentified', reason: cut(findings.why) }
    case 'container':
      return { verdict: 'container_only', reason: cut(findings.why), socket: findings.socket }
    case 'several':
      return {
        verdict: 'shared',
        reason: cut(`held by processes ${findings.pids.join(', ')}`),
      }
    case 'one':
      return judgeOne(findings)
  }
}

function judgeOne(found: Extract<Findings, { kind: 'one' }>): AgentTag {
  const { instanceId, declared } = found
  const rest = { instanceId, verified: verifiedOf(found), declared }
  if (found.unread > 0) {
    const reason = `processes that may not be searched: ${found.unread}; any of them could hold the connection too`
    return { verdict: 'container_only', reason, ...rest }
  }
  if (found.relay) {
    const reason = 'the process passes on what others send to it'
    return { verdict: 'relay', reason, ...rest }
  }
  return { verdict: 'exclusive', ...rest }
}

function verifiedOf(found: Extract<Findings, { kind: 'one' }>): Verified {
  const { process, exeHash, execOrdinal, bootId } = found
  const { pid, image, uid, gid, containerId, ancestors } = process
  const note = exeNote(process, exeHash)
  return {
    pid,
    startTicks: image.startTicks,
    ...(image.exe === undefined ? {} : { exe: image.exe }),
    ...('sha256' in exeHash ? { exeSha256: exeHash.sha256 } : {}),
    ...(note === undefined ? {} : { exeNote: note }),
    execOrdinal,
    ...(containerId === undefined ? {} : { containerId }),
    bootId,
    uid,
    gid,
    ancestors: [...ancestors],
  }
}

/** The kernel marks the path of a file without a name; memfd_create(2) makes files that never had one. */
function exeNote(
  { image: { exe }, exeIsWritable }: ProcessFacts,
  hash: ExeHash,
): string | undefined {
  const notes = 'note' in hash ? [hash.note] : []
  if (exe?.startsWith('/memfd:') === true) notes.push('it never was a file')
  else if (exe?.endsWith(' (deleted)') === true) notes.push('the file is deleted')
  else if (exeIsWritable) notes.push('its user may write the file')
  return notes.length === 0 ? undefined : cut(notes.join('; '))
}

function cut(text: string): string {
  return text.slice(0, MAX_FIELD_LENGTH)
}
