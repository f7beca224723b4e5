/** What the benchmark of masking runs on: a stand-in for an API server, a broker that masks what comes from it by one name, and passes it on by another. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from '../scripts/image.ts'
import { run } from '../scripts/run.ts'
import { makeCertificates } from '../test/support/certificates.ts'
import { AUDIENCE, mintRunnerToken, startRunnerIssuer } from '../test/support/runner-issuer.ts'
import type { LoadPlan } from './load.ts'
import { start } from './processes.ts'
import type { Measured } from './processes.ts'

/** How an answer comes: from the stand-in itself, through the broker as it is, through the broker with the standard profile. */
export type MaskingWay = 'direct' | 'mask: none' | 'standard'
export const WAYS: readonly MaskingWay[] = ['direct', 'mask: none', 'standard']

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - id: masked
    match: { clusters: [masked], verbs: [get, list, watch], resources: ['*'] }
    effect: allow
  - id: passed
    match: { clusters: [passed], verbs: [get, list, watch], resources: ['*'] }
    effect: allow
    mask: none
`
const CLUSTERS = { 'mask: none': 'passed', standard: 'masked' } as const
const LISTENING = /"port":(\d+).*"msg":"listening"/

/** All that runs. */
export interface MaskingWorld {
  /** The one that runs now. */
  broker(): Measured
  /** Ends the broker, and starts another in its place. */
  restart(): Promise<void>
  /** Where a way begins; the token in it is good for ten minutes. */
  target(way: MaskingWay): Promise<Target>
  stop(): Promise<void>
}

/** What a client needs to ask. */
export interface Target {
  readonly origin: string
  /** Before the paths of the API server. */
  readonly prefix: string
  readonly headers: Readonly<Record<string, string>>
  readonly tls: NonNullable<LoadPlan['tls']>
}

/** Compiles the broker, and starts it before the stand-in. */
export async function openMaskingWorld(): Promise<MaskingWorld> {
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  // Below the project, where the compiled files find its packages.
  const work = mkdtempSync(join(ROOT, 'build', 'masking-'))
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const started: Measured[] = []
  const issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
  const stop = async (): Promise<void> => {
    for (const one of started.toReversed()) await one.stop()
    await issuer.close()
    rmSync(work, { recursive: true, force: true })
  }
  const file = (name: string, text: string): string => {
    writeFileSync(join(work, name), text, { mode: 0o600 })
    return join(work, name)
  }
  try {
    const built = join(work, 'dist')
    await run('npm', ['run', 'build', '--', '--outDir', built], { cwd: ROOT })
    mkdirSync(join(work, 'data'))
    const tls = {
      certFile: file('tls.crt', certificates.cert),
      keyFile: file('tls.key', certificates.key),
    }
    const caFile = file('ca.crt', certificates.ca)
    const serverFile = join(import.meta.dirname, 'masking-server.ts')
    const server = await start(
      'API server',
      'node',
      [serverFile, tls.certFile, tls.keyFile],
      /port (\d+)/,
    )
    started.push(server)
    const origin = `https://127.0.0.1:${server.ready[1] ?? ''}`
    const connection = (name: string): object => ({
      ...{ name, server: origin, caFile },
      serviceAccountTokens: { verify: 'tokenReview' },
      credential: { tokenFile: file('token', 'of the broker\n') },
    })
    const config = {
      ...{ listen: { host: '127.0.0.1', port: 0 }, tls, dataDir: join(work, 'data') },
      policyFile: file('policy.yaml', POLICY),
      clusters: Object.values(CLUSTERS).map(connection),
      oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: [AUDIENCE], caFile }],
      people: [],
    }
    const args = ['--disable-sigusr1', join(built, 'broker', 'main.js'), '--config']
    const configFile = file('broker.json', JSON.stringify(config))
    const startBroker = async (): Promise<Measured> => {
      const one = await start('broker', 'node', [...args, configFile], LISTENING)
      started.push(one)
      return one
    }
    let broker = await startBroker()
    const restart = async (): Promise<void> => {
      await broker.stop()
      broker = await startBroker()
    }
    const own = { tls: { ca: certificates.ca } }
    const target = async (way: MaskingWay): Promise<Target> => {
      if (way === 'direct') return { origin, prefix: '', headers: {}, ...own }
      const authorization = `Bearer ${await mintRunnerToken(issuer, { sub: 'bench' })}`
      return {
        origin: `https://127.0.0.1:${broker.ready[1] ?? ''}`,
        prefix: `/clusters/${CLUSTERS[way]}`,
        headers: { authorization },
        ...own,
      }
    }
    return { broker: () => broker, restart, target, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
