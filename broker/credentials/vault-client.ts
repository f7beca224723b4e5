/**
 * Calls to the Transit engine of HashiCorp Vault or OpenBao: TLS that is always verified, a token from a private file,
 * bounded answers and times, no redirect followed. What a Vault says is never repeated, only its status.
 */
import { Agent } from 'undici'
import { z } from 'zod'
import { codeOf, Fault, messageOf } from '../../shared/errors.ts'
import { readPrivateFile } from '../../shared/private-file.ts'
import { watchFile } from '../../shared/watched-file.ts'

/** Longest wait for an answer, in milliseconds: a request of a client waits for its signature. */
export const VAULT_ANSWER_MS = 5_000
/** Longest answer, in bytes: the public keys of some thousand versions. */
const MAX_ANSWER_BYTES = 1024 * 1024
/** Connections; above that a signature waits for another, which takes milliseconds. */
const CONNECTIONS = 32
/** Name of a key, as Transit takes it (framework.GenericNameRegex). */
const KEY_NAME = /^\w(?:[\w.-]*\w)?$/
const MOUNT = /^[\w-]+(?:\/[\w-]+)*$/

/** `issuer.signer.vault` of the broker's configuration. */
export const vaultSchema = z.strictObject({
  /** Address of Vault, without a path. */
  address: z
    .url({ protocol: /^https$/, error: 'expected an https URL' })
    .refine((value) => /^https:\/\/[^/?#@]+$/.test(value), 'expected host and port, no path'),
  /** Where the Transit engine is mounted. */
  mount: z.string().regex(MOUNT, 'expected a path of plain words').default('transit'),
  /** Name of the key, of type `ecdsa-p256`. */
  key: z.string().regex(KEY_NAME, 'expected a name of letters, digits, _, - and .'),
  /** File with the token; read again when it changes. */
  tokenFile: z.string().min(1),
  /** Certificates that Vault's must come from; the system's when left out. Read again when it changes. */
  caFile: z.string().min(1).optional(),
})

/** See {@link vaultSchema}. */
export type VaultSettings = z.infer<typeof vaultSchema>

/** What Vault said, or why that is nothing to work with. */
export type VaultAnswer =
  | { readonly json: unknown }
  /** `status` where there was an answer at all. */
  | { readonly problem: string; readonly status?: number }

/** See the head of the file. */
export interface VaultClient {
  /** Does not reject. @param path - below the mount */
  call(method: 'GET' | 'POST', path: string, body?: object): Promise<VaultAnswer>
  /** Cuts what is under way. */
  close(): void
}

/** Makes a client; nothing is connected or read yet. @param now - milliseconds, any origin */
export function createVaultClient(
  { address, mount, tokenFile, caFile }: VaultSettings,
  now: () => number,
  answerMs: number = VAULT_ANSWER_MS,
): VaultClient {
  const token = watchFile(tokenFile, now, readPrivateFile)
  const authority = caFile === undefined ? undefined : watchFile(caFile, now)
  let known: { readonly ca: string | undefined; readonly agent: Agent } | undefined
  /** For the authority as it is now. */
  const agentNow = async (): Promise<Agent> => {
    const ca = await authority?.read()
    if (known !== undefined && known.ca === ca) return known.agent
    const before = known?.agent
    known = { ca, agent: agentFor(ca, answerMs) }
    // what is under way on it ends by itself
    void before?.close()
    return known.agent
  }
  return {
    async call(method, path, body) {
      try {
        const agent = await agentNow()
        const answer = await agent.request({
          ...{ origin: address, path: `/v1/${mount}/${path}`, method },
          headers: {
            'x-vault-token': (await token.read()).trim(),
            // an agent in front may demand it, so that no page of a browser can call
            'x-vault-request': 'true',
            accept: 'application/json',
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          body: body === undefined ? null : JSON.stringify(body),
          // the limits of the agent are for each pause; this one is for all of it
          signal: AbortSignal.timeout(answerMs),
        })
        const { statusCode: status } = answer
        const text = await answer.body.text()
        if (status < 200 || status >= 300) return { problem: `status ${status}`, status }
        return text === '' ? { json: undefined } : { json: JSON.parse(text) }
      } catch (error) {
        return { problem: problemOf(error) }
      }
    },
    close() {
      void known?.agent.destroy()
    },
  }
}

function agentFor(ca: string | undefined, answerMs: number): Agent {
  return new Agent({
    // said in so many words: NODE_TLS_REJECT_UNAUTHORIZED must not be able to switch it off
    connect: {
      ...{ timeout: answerMs, rejectUnauthorized: true },
      ...(ca === undefined ? {} : { ca }),
    },
    ...{ connections: CONNECTIONS, allowH2: false },
    ...{ headersTimeout: answerMs, bodyTimeout: answerMs, maxResponseSize: MAX_ANSWER_BYTES },
  })
}

function problemOf(error: unknown): string {
  // its message repeats what was read
  if (error instanceof SyntaxError) return 'not JSON'
  if (error instanceof Error && error.name === 'TimeoutError') return 'no answer in time'
  return error instanceof Fault ? error.message : (codeOf(error) ?? messageOf(error))
}
