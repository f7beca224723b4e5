/**
 * What in-cluster clients read at the service-account path (client-go's `rest.InClusterConfig` and its counterparts):
 * the CA of the loopback listener, the namespace, and a token, which they insist on and which is none.
 */
import { chmodSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Plainly no credential; the sidecar never sends it on (headers.ts). */
export const PLACEHOLDER_TOKEN = 'nestgate-placeholder-this-is-no-credential'
/** Readable to every user of the pod: agents run as whoever they like. */
const FILE_MODE = 0o644

/**
 * Writes the files, each at once: a reader sees the old one or the new one.
 *
 * @param dir - agents may only read it
 * @throws the system's error where it cannot be written
 */
export function writeServiceAccountFiles(dir: string, ca: string, namespace: string): void {
  const files = { 'ca.crt': ca, namespace, token: PLACEHOLDER_TOKEN }
  for (const [name, content] of Object.entries(files)) {
    const path = join(dir, name)
    const next = join(dir, `.${name}.next`)
    writeFileSync(next, content)
    // The umask is the image's.
    chmodSync(next, FILE_MODE)
    renameSync(next, path)
  }
}
