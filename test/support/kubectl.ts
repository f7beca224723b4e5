/** Real kubectls of this machine, the command `nestgate` for their credential plugins, and as much of a cluster as they ask for. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, readdirSync, realpathSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'

/** Entry point of `nestgate`. */
export const CLI = new URL('../../cli/main.ts', import.meta.url).pathname

/** What a process ended with. */
export interface Run {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs a program to its end. */
export async function run(
  command: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<Run> {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out, err }
}

/** Puts the command `nestgate` into a folder, as a job's image has it. @returns a PATH that begins with it */
export function withNestgate(folder: string): string {
  const command = join(folder, 'nestgate')
  writeFileSync(command, `#!/bin/sh\nexec ${process.execPath} ${CLI} "$@"\n`)
  chmodSync(command, 0o755)
  return `${folder}:/usr/bin:/bin`
}

/** Paths of the oldest and the newest beside the kubectl that is found; empty where there is none. */
export function kubectls(): readonly string[] {
  const found = spawnSync('sh', ['-c', 'command -v kubectl'], { encoding: 'utf8' }).stdout.trim()
  if (found === '') return []
  const folder = dirname(realpathSync(found))
  const versions = readdirSync(folder)
    .filter((name) => /^kubectl\.1\.\d+$/.test(name))
    .sort((a, b) => Number(a.split('.')[2]) - Number(b.split('.')[2]))
  const [oldest, newest] = [versions[0], versions.at(-1)]
  if (oldest === undefined || newest === undefined) return [found]
  return [...new Set([oldest, newest])].map((name) => join(folder, name))
}

/** As much of a cluster as kubectl asks for before it deletes a deployment. */
export const DISCOVERY: Readonly<Record<string, object>> = {
  '/api': { kind: 'APIVersions', versions: ['v1'] },
  '/api/v1': { kind: 'APIResourceList', groupVersion: 'v1', resources: [] },
  '/apis': {
    ...{ kind: 'APIGroupList', apiVersion: 'v1' },
    groups: [
      {
        name: 'apps',
        versions: [{ groupVersion: 'apps/v1', version: 'v1' }],
        preferredVersion: { groupVersion: 'apps/v1', version: 'v1' },
      },
    ],
  },
  '/apis/apps/v1': {
    ...{ kind: 'APIResourceList', apiVersion: 'v1', groupVersion: 'apps/v1' },
    resources: [
      {
        ...{ name: 'deployments', singularName: 'deployment', namespaced: true },
        ...{ kind: 'Deployment', verbs: ['get', 'list', 'delete'] },
      },
    ],
  },
}

/** Answers with JSON. */
export function sendJson(response: ServerResponse, value: object): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}
