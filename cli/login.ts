/** `nestgate login`, `logout` and `whoami`. */
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { z } from 'zod'
import { LOGIN_FLOWS, loginIssuersSchema, meSchema } from '../shared/wire.ts'
import type { LoginIssuers } from '../shared/wire.ts'
import { CallError, createClient } from './client.ts'
import type { BrokerClient } from './client.ts'
import { openBrowser, signInByBrowser } from './login-browser.ts'
import { signInByDevice } from './login-device.ts'
import { connectIssuer } from './login-issuer.ts'
import type { IssuerConnection, Tokens } from './login-issuer.ts'
import { issuerCa, withTokens } from './login-session.ts'
import { openLoginStore } from './login-store.ts'
import type { SignIn } from './login-store.ts'
import { plain, toDetails, toJson } from './output.ts'
import type { CliDeps, Runner } from './program.ts'
import { readText, UsageError } from './settings.ts'
import type { BrokerSettings } from './settings.ts'

/** What these commands need, beside what all do. */
export interface LoginDeps extends CliDeps {
  readonly settings: () => BrokerSettings
}

type LoginIssuer = LoginIssuers['issuers'][number]
type Flow = (typeof LOGIN_FLOWS)[number]

interface LoginOptions {
  readonly issuer?: string
  readonly device?: boolean
  readonly open: boolean
  readonly issuerCaFile?: string
}

/** Adds the commands. */
export function addLogin(program: Command, runner: Runner, deps: LoginDeps): void {
  program
    .command('login')
    .description('sign in at one of the broker’s issuers, with the browser of this machine')
    .option('--issuer <name>', 'which issuer, where the broker has several')
    .option('--device', 'sign in with a code, in a browser anywhere')
    .option('--no-open', 'print the address, but do not open it')
    .option(
      '--issuer-ca-file <file>',
      'certificates that the issuer’s must come from (NESTGATE_ISSUER_CA_FILE)',
    )
    .action(async (options: LoginOptions) => {
      await login(runner, deps, options)
    })
  program
    .command('logout')
    .description('forget the sign-in at the broker, and revoke it where the issuer can')
    .action(async () => {
      runner.print(await logout(deps))
    })
  program
    .command('whoami')
    .description('who you are for the broker')
    .action(() =>
      runner.call(async (client, format) => {
        const me = await client.get(meSchema, 'v1/me')
        return format === 'json' ? toJson(me) : describe(me)
      }),
    )
}

async function login(runner: Runner, deps: LoginDeps, options: LoginOptions): Promise<void> {
  const { url, ca } = deps.settings()
  const broker = { url, ...(ca === undefined ? {} : { ca }) }
  const { issuers } = await withClient(broker, (client) =>
    client.get(loginIssuersSchema, 'v1/login'),
  )
  const issuer = chooseIssuer(issuers, options.issuer)
  const flow = chooseFlow(issuer, options.device === true)
  const caFile = options.issuerCaFile ?? deps.env['NESTGATE_ISSUER_CA_FILE']
  const trust = caFile === undefined ? {} : { issuerCaFile: resolve(caFile) }
  const connection = await connectIssuer(
    issuer.issuer,
    caFile === undefined ? undefined : readText(caFile),
  )
  let tokens: Tokens
  try {
    tokens = await signIn(flow, connection, issuer, deps, options.open)
  } finally {
    await connection.close()
  }
  const { name, issuer: address, clientId, scopes } = issuer
  const kept = { name, issuer: address, clientId, scopes: [...scopes], ...trust }
  await openLoginStore(deps.env).change(url, () => Promise.resolve(withTokens(kept, tokens)))
  runner.print(
    await withClient({ ...broker, token: tokens.idToken }, (client) =>
      greet(client, runner.format() === 'json'),
    ),
  )
}

function signIn(
  flow: Flow,
  connection: IssuerConnection,
  issuer: LoginIssuer,
  deps: LoginDeps,
  isToOpen: boolean,
): Promise<Tokens> {
  const tell = (text: string): void => {
    deps.err(`${plain(text)}\n`)
  }
  if (flow === 'browser') {
    return signInByBrowser(connection, issuer, {
      now: deps.now,
      open(url) {
        tell(`Sign in with your browser: ${url}`)
        if (isToOpen) openBrowser(url)
      },
    })
  }
  return signInByDevice(connection, issuer, {
    ...{ now: deps.now, sleep },
    tell({ userCode, verificationUri, verificationUriComplete }) {
      tell(`Sign in at ${verificationUri} with the code ${userCode}`)
      if (verificationUriComplete !== undefined) tell(`or at ${verificationUriComplete}`)
    },
  })
}

function chooseIssuer(issuers: readonly LoginIssuer[], name: string | undefined): LoginIssuer {
  const names = issuers.map((issuer) => issuer.name).join(', ')
  const [first, ...others] =
    name === undefined ? issuers : issuers.filter((issuer) => issuer.name === name)
  if (first === undefined) {
    throw new UsageError(
      issuers.length === 0
        ? 'nobody can sign in at this broker: it needs a token'
        : `no such issuer: there is ${names}`,
    )
  }
  if (others.length > 0) throw new UsageError(`give --issuer: there is ${names}`)
  return first
}

function chooseFlow({ name, flows }: LoginIssuer, isDevice: boolean): Flow {
  const flow = isDevice || !flows.includes('browser') ? 'device' : 'browser'
  if (!flows.includes(flow)) throw new UsageError(`${name} has no sign-in by ${flow}`)
  return flow
}

/** Says who signed in; a subject without a role may still call clusters. */
async function greet(client: BrokerClient, isJson: boolean): Promise<string> {
  try {
    const me = await client.get(meSchema, 'v1/me')
    return isJson ? toJson(me) : `Signed in.\n${describe(me)}`
  } catch (error) {
    if (error instanceof CallError && error.code === 'role_missing') {
      const text = 'Signed in, without any role in the broker’s own API.'
      return isJson ? toJson({ roles: [] }) : text
    }
    throw error
  }
}

function describe({ name, roles, groups, expiresAt }: z.infer<typeof meSchema>): string {
  return toDetails([
    ['name', name],
    ['roles', roles.join(', ')],
    ['groups', groups.join(', ')],
    ['token ends', expiresAt],
  ])
}

async function logout({ env, settings }: LoginDeps): Promise<string> {
  const store = openLoginStore(env)
  const { url } = settings()
  let was: SignIn | undefined
  await store.change(url, (current) => {
    was = current
    return Promise.resolve(undefined)
  })
  if (was === undefined) return 'Nobody was signed in.'
  const isRevoked = await revoke(was)
  return isRevoked ? 'Signed out.' : 'Signed out here; the issuer was not told.'
}

/** @returns whether the issuer knows; one that does not keeps nobody signed in here */
async function revoke(signIn: SignIn): Promise<boolean> {
  const { refreshToken, issuer, clientId } = signIn
  if (refreshToken === undefined) return true
  try {
    const connection = await connectIssuer(issuer, issuerCa(signIn))
    try {
      const endpoint = connection.metadata.revocation_endpoint
      if (endpoint === undefined) return false
      const form = { client_id: clientId, token: refreshToken, token_type_hint: 'refresh_token' }
      await connection.post(z.unknown(), endpoint, form)
      return true
    } finally {
      await connection.close()
    }
  } catch (error) {
    if (error instanceof CallError || error instanceof UsageError) return false
    throw error
  }
}

async function withClient<T>(
  broker: BrokerSettings,
  work: (client: BrokerClient) => Promise<T>,
): Promise<T> {
  const client = createClient(broker)
  try {
    return await work(client)
  } finally {
    await client.close()
  }
}
