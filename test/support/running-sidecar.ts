/** A sidecar for tests: in this process with a token file of its own, called by real client processes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLog } from '../../shared/log.ts'
import { readSidecarConfig } from '../../sidecar/config.ts'
import { startSidecar } from '../../sidecar/sidecar.ts'
import type { Sidecar } from '../../sidecar/sidecar.ts'
import { POD_TOKEN } from './fake-broker.ts'
import type { FakeBroker } from './fake-broker.ts'

/** See the head of the file. */
export interface RunningSidecar {
  readonly port: number
  readonly url: string
  readonly tokenFile: string
  readonly sidecar: Sidecar
  close(): Promise<void>
}

/** The environment of a sidecar that calls this broker. */
export async function sidecarEnv(
  broker: FakeBroker,
): Promise<{ env: Record<string, string>; tokenFile: string; remove: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-sidecar-'))
  const tokenFile = join(dir, 'token')
  await writeFile(tokenFile, `${POD_TOKEN}\n`)
  const env = {
    NESTGATE_BROKER_URL: broker.url,
    NESTGATE_CLUSTER: 'test',
    NESTGATE_BROKER_CA_PEM: broker.ca,
    NESTGATE_TOKEN_FILE: tokenFile,
    NESTGATE_LISTEN_PORT: '0',
    NESTGATE_HEALTH_PORT: '0',
    NESTGATE_POSTURE: 'report',
    NESTGATE_BROKER_WAIT_SECONDS: '1',
    NESTGATE_LOG_LEVEL: 'silent',
  }
  return { env, tokenFile, remove: () => rm(dir, { recursive: true }) }
}

/** Starts one and waits until it is registered, unless `wait` is false. */
export async function startTestSidecar(
  broker: FakeBroker,
  { wait = true, extra = {} }: { wait?: boolean; extra?: Record<string, string> } = {},
): Promise<RunningSidecar> {
  const { env, tokenFile, remove } = await sidecarEnv(broker)
  const config = readSidecarConfig({ argv: [], env: { ...env, ...extra } })
  const sidecar = await startSidecar(config, createLog('test', 'silent'), {
    pid: process.pid,
    isTraceable: false,
  })
  const port = sidecar.addresses[0]?.port ?? 0
  while (wait && broker.registrations === 0) await sleep(10)
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    tokenFile,
    sidecar,
    async close(): Promise<void> {
      await sidecar.close()
      await remove()
    },
  }
}
