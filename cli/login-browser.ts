/**
 * Signing in with this machine's browser: authorization code with PKCE (RFC 7636, S256), back to a port of the loopback that only
 * this process listens on (RFC 8252). `state` ties the answer to the question, `iss` to the issuer (RFC 9207), `nonce` the ID token
 * to both. What comes without the right state changes nothing.
 */
import { spawn } from 'node:child_process'
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { CallError } from './client.ts'
import { IssuerError, requestTokens } from './login-issuer.ts'
import type { IssuerClient, IssuerConnection, Tokens } from './login-issuer.ts'

/** How long a person may take, in milliseconds. */
const PERSON_MS = 5 * 60_000
/** How long an answer to the browser may take, in milliseconds. */
const LAST_WORDS_MS = 500
/** Random bytes of state, nonce and verifier. */
const SECRET_BYTES = 32
const HOST = '127.0.0.1'
const CALLBACK = '/callback'

/** What it needs of its process. */
export interface BrowserDeps {
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Shows the address to the person, and to their browser. */
  readonly open: (url: string) => void
}

/** Signs in. @throws CallError when the person or the issuer refuses, or nobody answers in time */
export async function signInByBrowser(
  connection: IssuerConnection,
  client: IssuerClient & { readonly scopes: readonly string[] },
  { now, open }: BrowserDeps,
): Promise<Tokens> {
  const { metadata } = connection
  if (metadata.authorization_endpoint === undefined)
    throw new CallError('the issuer has no sign-in by browser')
  const [state, nonce, verifier] = [secret(), secret(), secret()]
  const landing = await listenForAnswer(state)
  try {
    const url = new URL(metadata.authorization_endpoint)
    const query = {
      ...{ response_type: 'code', client_id: client.clientId, redirect_uri: landing.redirectUri },
      ...{ scope: client.scopes.join(' '), state, nonce, code_challenge_method: 'S256' },
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      // without it there is no refresh token (OpenID Connect Core 1.0, 11)
      ...(client.scopes.includes('offline_access') ? { prompt: 'consent' } : {}),
    }
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    open(url.href)
    const answer = await landing.answer
    checkIssuer(answer, client.issuer, metadata.authorization_response_iss_parameter_supported)
    const error = answer.get('error')
    if (error !== null) throw new IssuerError(error, answer.get('error_description') ?? undefined)
    const code = answer.get('code')
    if (code === null) throw new CallError('the issuer sent no code')
    const form = { grant_type: 'authorization_code', code, code_verifier: verifier }
    return await requestTokens(
      connection,
      client,
      { ...form, redirect_uri: landing.redirectUri },
      { nonce, now: now() },
    )
  } finally {
    landing.close()
  }
}

/** Shows an address in the browser of this machine, where it has one. */
export function openBrowser(url: string): void {
  const [program = '', ...args] =
    process.platform === 'darwin'
      ? ['open']
      : process.platform === 'win32'
        ? ['rundll32', 'url.dll,FileProtocolHandler']
        : ['xdg-open']
  const child = spawn(program, [...args, url], { stdio: 'ignore', detached: true })
  // the address was printed as well
  child.on('error', () => undefined)
  child.unref()
}

function secret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url')
}

function checkIssuer(answer: URLSearchParams, issuer: string, isNeeded: boolean): void {
  const given = answer.get('iss')
  if (given === null ? isNeeded : given !== issuer)
    throw new CallError('the answer is by another issuer')
}

interface Landing {
  readonly redirectUri: string
  readonly answer: Promise<URLSearchParams>
  close(): void
}

async function listenForAnswer(state: string): Promise<Landing> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, HOST, resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new CallError('no port to listen on')
  const host = `${HOST}:${address.port}`
  let timer: NodeJS.Timeout | undefined
  const answer = new Promise<URLSearchParams>((resolve, reject) => {
    timer = setTimeout(() => {
      reject(new CallError('nobody signed in in time'))
    }, PERSON_MS)
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const query = answerOf(request, host, state)
      respond(response, query)
      if (query !== undefined) resolve(query)
    })
  })
  return {
    redirectUri: `http://${host}${CALLBACK}`,
    answer,
    close() {
      clearTimeout(timer)
      closeServer(server)
    },
  }
}

/** The issuer's answer, if this is it. */
function answerOf(
  { method, url, headers }: IncomingMessage,
  host: string,
  state: string,
): URLSearchParams | undefined {
  const target = URL.parse(url ?? '', `http://${host}`)
  if (method !== 'GET' || headers.host !== host || target?.pathname !== CALLBACK) return undefined
  const given = target.searchParams.getAll('state')
  return given.length === 1 && isSame(given[0] ?? '', state) ? target.searchParams : undefined
}

function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)]
  return a.length === b.length && timingSafeEqual(a, b)
}

function respond(response: ServerResponse, query: URLSearchParams | undefined): void {
  const text =
    query === undefined
      ? 'This is not the answer to a sign-in that was begun here.'
      : 'Please go back to your terminal. This page may be closed.'
  response.writeHead(query === undefined ? 400 : 200, {
    ...{ 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' },
    ...{ 'referrer-policy': 'no-referrer', 'x-content-type-options': 'nosniff' },
    connection: 'close',
  })
  response.end(`${text}\n`)
}

/** What is being written to the browser still arrives; what a browser keeps open does not keep us. */
function closeServer(server: Server): void {
  server.close()
  server.closeIdleConnections()
  setTimeout(() => {
    server.closeAllConnections()
  }, LAST_WORDS_MS).unref()
}
